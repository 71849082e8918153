package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/nsready/nsready/engine/ingest"
)

// maxRatio bounds how much larger a decompressed body may be.
const maxRatio = 100

// contentFormat reads the Content-Type.
func contentFormat(h http.Header) (ingest.Format, error) {
	unsupported := func(message string) (ingest.Format, error) {
		return 0, &httpError{http.StatusUnsupportedMediaType, "content_type_unsupported", message + " Send application/json or application/x-ndjson.", 0}
	}
	values := h["Content-Type"]
	if len(values) == 1 && values[0] == "application/json" {
		return ingest.JSON, nil
	}
	if len(values) != 1 {
		return unsupported("There is no Content-Type, or more than one.")
	}
	kind, parameters, err := mime.ParseMediaType(values[0])
	if err != nil {
		return unsupported("The Content-Type cannot be read.")
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("The charset is not utf-8.")
	}
	switch kind {
	case "application/json":
		return ingest.JSON, nil
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return ingest.NDJSON, nil
	}
	return unsupported("The Content-Type is not supported.")
}

// decompress appends what compressed holds to b's memory. cover is asked before that grows.
type decompress func(b, compressed []byte, cover func(n int64) error) ([]byte, error)

const acceptedEncodings = "gzip, zstd"

// contentEncoding reads the Content-Encoding: how to decompress the body, or nil.
func contentEncoding(h http.Header) (decompress, error) {
	values := h["Content-Encoding"]
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) == 1 {
		switch strings.ToLower(strings.TrimSpace(values[0])) {
		case "", "identity":
			return nil, nil
		case "gzip":
			return gunzip, nil
		case "zstd":
			return unzstd, nil
		}
	}
	return nil, &httpError{http.StatusUnsupportedMediaType, "content_encoding_unsupported", "The Content-Encoding is not supported: send gzip or zstd, once, or none.", 0}
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// gunzip decompresses one or more gzip members.
func gunzip(b, compressed []byte, cover func(n int64) error) ([]byte, error) {
	broken := &httpError{http.StatusBadRequest, "gzip_invalid", "The body is not a complete and intact gzip stream.", 0}
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(bytes.NewReader(compressed)); err != nil {
		return b, broken
	}
	return expand(b, z, len(compressed), cover, broken)
}

// Decoders of zstd take the memory of a window, which the sender chooses: no more than maxWindow, and few at a time.
const (
	maxWindow = MaxBatchBody // what zstd -19 uses, and all that a body can make use of
	maxZstd   = 4
)

var (
	zstdRoom     = make(chan struct{}, maxZstd)
	zstdDecoders = sync.Pool{New: func() any {
		// One at a time, it starts no goroutines.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil { // the options are constant
			panic(err)
		}
		return d
	}}
)

// unzstd decompresses one or more zstd frames.
func unzstd(b, compressed []byte, cover func(n int64) error) ([]byte, error) {
	broken := &httpError{http.StatusBadRequest, "zstd_invalid",
		fmt.Sprintf("The body is not a complete and intact zstd stream with a window of at most %d MiB, without a dictionary.", maxWindow>>20), 0}
	zstdRoom <- struct{}{}
	defer func() { <-zstdRoom }()
	z := zstdDecoders.Get().(*zstd.Decoder)
	defer func() {
		if z.Reset(nil) == nil {
			zstdDecoders.Put(z)
		}
	}()
	if err := z.Reset(bytes.NewReader(compressed)); err != nil {
		return b, broken
	}
	return expand(b, z, len(compressed), cover, broken)
}

// expand reads r, which decompresses size bytes, within the limits. broken is the error when they cannot be decompressed.
func expand(b []byte, r io.Reader, size int, cover func(n int64) error, broken *httpError) ([]byte, error) {
	limit := min(int64(MaxBatchBody), maxRatio*int64(size))
	b, err := readAll(b, r, 0, limit, cover)
	if int64(len(b)) > limit && limit < MaxBatchBody {
		return b, ratioExceeded()
	}
	if refused := (*httpError)(nil); errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return b, broken
	}
	return b, err
}

func ratioExceeded() error {
	return &httpError{http.StatusRequestEntityTooLarge, "compression_ratio", fmt.Sprintf("The body is more than %d times larger than it was sent.", maxRatio), 0}
}

// unsnappy decompresses a block of snappy, which says its size first.
func unsnappy(b, compressed []byte, cover func(n int64) error) ([]byte, error) {
	size, err := snappy.DecodedLen(compressed)
	if err == nil && size > MaxBatchBody {
		return b, tooLarge(MaxBatchBody)
	}
	if err == nil && size > maxRatio*len(compressed) {
		return b, ratioExceeded()
	}
	if err == nil {
		if err := cover(int64(size)); err != nil {
			return b, err
		}
		b, err = snappy.Decode(b[:cap(b)], compressed)
	}
	if err != nil {
		return b, &httpError{http.StatusBadRequest, "snappy_invalid", "The body is not a complete and intact block of snappy.", 0}
	}
	return b, nil
}
