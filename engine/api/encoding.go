package api

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"

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

// contentEncoding reads the Content-Encoding: "" or "gzip".
func contentEncoding(h http.Header) (string, error) {
	values := h["Content-Encoding"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) == 1 {
		switch strings.ToLower(strings.TrimSpace(values[0])) {
		case "", "identity":
			return "", nil
		case "gzip":
			return "gzip", nil
		}
	}
	return "", &httpError{http.StatusUnsupportedMediaType, "content_encoding_unsupported", "The Content-Encoding is not supported: send gzip, once, or none.", 0}
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// gunzip decompresses one or more gzip members into b's memory.
func gunzip(b, compressed []byte, cover func(n int64) error) ([]byte, error) {
	broken := &httpError{http.StatusBadRequest, "gzip_invalid", "The body is not a complete and intact gzip stream.", 0}
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(bytes.NewReader(compressed)); err != nil {
		return b, broken
	}
	limit := min(int64(MaxBatchBody), maxRatio*int64(len(compressed)))
	b, err := readAll(b, z, 0, limit, cover)
	if int64(len(b)) > limit && limit < MaxBatchBody {
		return b, &httpError{http.StatusRequestEntityTooLarge, "compression_ratio", fmt.Sprintf("The body is more than %d times larger than it was sent.", maxRatio), 0}
	}
	if refused := (*httpError)(nil); errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return b, broken
	}
	return b, err
}
