// Package ingest turns what devices send into records of the queue: it decodes, checks each event against the registry
// and answers when the accepted ones are on disk. It knows no transport.
package ingest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Queue takes blocks for its partitions, lane by lane. Append copies the block; the function that it returns waits until
// that is on disk.
type Queue interface {
	Append(partition int, b telemetry.Block) (wait func(context.Context) error, err error)
}

// Registry is what there is, and a look past it: when Refresh returns without error, the snapshot has all that was
// committed before the call.
type Registry interface {
	Snapshot() *registry.Snapshot
	Refresh(ctx context.Context) error
}

// Format is the form of a body.
type Format int

const (
	JSON       Format = iota // one event, or an array of events
	NDJSON                   // one event a line
	Prometheus               // remote write 1.0, a WriteRequest in protobuf without its compression

	// Line protocol, by the precision of its timestamps; see InfluxPrecision.
	InfluxNanoseconds
	InfluxMicroseconds
	InfluxMilliseconds
	InfluxSeconds
	InfluxMinutes
	InfluxHours
)

// Limits on a body.
const (
	MaxEvents   = 10_000
	maxFuture   = 5 * time.Minute
	maxAge      = 366 * 24 * time.Hour // where no retention is declared
	maxRecord   = 256 << 10            // of one event in the queue
	blockSize   = 512 << 10            // of a block in its frame, unless it is one event
	lateSize    = 64 << 10             // in the backfill lane
	maxReported = 100                  // rejections in a Result
)

// Codes of a Rejection of a whole body, and of events that do not fit the registry.
const (
	CodeEmpty              = "empty_body"
	CodeTooManyEvents      = "too_many_events"
	CodeUnknownDevice      = "unknown_device"
	CodeDeviceRetired      = "device_retired"
	CodeProjectMismatch    = "project_mismatch"
	CodeSiteMismatch       = "site_mismatch"
	CodeUnknownParameter   = "unknown_parameter"
	CodeParameterRetired   = "parameter_retired"
	CodeDuplicateParameter = "duplicate_parameter"
	CodeOutsideLimits      = "outside_limits"
	CodeTypeViolation      = "type_violation"
	CodeTooOld             = "timestamp_too_old"
	CodeInFuture           = "timestamp_in_future"
	CodeEventTooLarge      = "event_too_large"
	CodeRegistryDown       = "registry_down" // the one that passes: send the event again
)

// Service accepts bodies. Its fields are set before its first use.
type Service struct {
	Registry   Registry
	Queue      Queue
	Partitions int                                  // of each lane
	Reject     func(device uuid.UUID, r *Rejection) // told of every refused event; device is zero when it is not known
	Pending    Pending                              // what is held of unknown devices

	clock    func() time.Time // nil for the machine's
	sets     setTable
	next     sync.Mutex // held while a resolver is replaced
	resolver atomic.Pointer[resolver]
	looks    looks
	scratch  sync.Pool
}

// Result is the outcome of a body: the events that are on disk, and those that are refused.
type Result struct {
	Batch      bool // the body was an array or NDJSON
	Accepted   int
	Rejected   int
	Untimed    int         // of the accepted: points without a time, which got that of their receipt
	Partial    int         // of the accepted: points without some of their fields
	Held       int         // of the accepted: events of unknown devices, which wait for these
	Rejections []Rejection // the first 100, those of partial points among them

	Limited    int           // events that were refused by a limit on events
	RetryAfter time.Duration // until there is room for them; 0 when there are none
}

// scratch is the memory of one call of Accept.
type scratch struct {
	decoder decoder
	raw     rawEvent
	event   telemetry.Event
	record  []byte
	quality []byte
	owner   *resolver           // of layout
	layout  *layout             // of the event before
	lines   bool                // the body is NDJSON
	whole   bool                // the body is queued as a whole, or not at all
	replay  bool                // of events that were held
	point   pointScratch        // of a body of points
	late    telemetry.Micros    // events before it take the backfill lane
	blocks  [][]telemetry.Block // by lane and partition
	waits   []func(context.Context) error
	missed  []missed
	now     ticks // when the body came
	limited limited
	result  Result
}

// missed is an event that the snapshot does not know; the registry may, if it has changed since.
type missed struct {
	line      int
	data      []byte
	device    uuid.UUID
	rejection *Rejection

	// Of a point:
	sample int     // which of data's, in a series
	fields *fields // that are to be asked for; nil when it is the device
}

// Accept decodes a body and queues the events that fit the registry. When it returns without error, all events counted as
// accepted are on disk. A body that cannot be taken apart is a *Rejection; a queue that takes nothing is a
// *telemetry.UnavailableError; after any error the sender may send the same again. Bodies of points get the latter also when
// one of them can only be judged later: what sends them cannot send one again without the others.
func (s *Service) Accept(ctx context.Context, format Format, body []byte) (Result, error) {
	x := s.scratchpad()
	defer s.release(x)
	if err := s.judge(ctx, format, body, x); err != nil {
		return Result{}, err
	}
	return x.result, s.queue(ctx, x)
}

// Submit is the first half of Accept, for a transport that takes the next body before the last one is on disk, and whose
// answer is for a body as a whole: when one of its events can only be judged later, none is queued. It returns when the
// events are in their place in the queue's order; wait returns when all that are counted as accepted are on disk, with the
// error that Accept would return. wait is nil after an error, and when no event was accepted.
func (s *Service) Submit(ctx context.Context, format Format, body []byte) (_ Result, wait func(context.Context) error, err error) {
	x := s.scratchpad()
	defer s.release(x)
	x.whole, x.limited.whole = true, true
	if err := s.judge(ctx, format, body, x); err != nil {
		return Result{}, nil, err
	}
	if err := s.append(x); err != nil { // of several blocks some may be queued: sent again, their events merge with themselves
		return Result{}, nil, err
	}
	switch len(x.waits) {
	case 0:
		return x.result, nil, nil
	case 1:
		return x.result, x.waits[0], nil
	}
	waits := slices.Clone(x.waits)
	return x.result, func(ctx context.Context) error { return waitAll(ctx, waits) }, nil
}

// Refuse reports a body that its transport refuses before it is decoded.
func (s *Service) Refuse(code string, input []byte, message string) {
	s.Reject(uuid.Nil, refuse(code, "", input, "%s", message))
}

func (s *Service) time() time.Time {
	if s.clock != nil {
		return s.clock()
	}
	return time.Now()
}

func (s *Service) scratchpad() *scratch {
	if x, ok := s.scratch.Get().(*scratch); ok {
		return x
	}
	return &scratch{blocks: make([][]telemetry.Block, telemetry.Lanes*s.Partitions)}
}

// judge decodes a body, and makes the result and the blocks of the events that fit the registry.
func (s *Service) judge(ctx context.Context, format Format, body []byte, x *scratch) error {
	r, came := s.current(), s.time()
	now := telemetry.MicrosOf(came)
	x.now = r.limits.at(came)
	x.late = now - telemetry.Micros(telemetry.BackfillAge.Microseconds())
	if err := s.each(format, body, x, func(line int, data []byte) (int, *Rejection) {
		return s.one(r, now, line, data, x)
	}); err != nil {
		s.Reject(uuid.Nil, err)
		return err
	}
	if len(x.missed) > 0 {
		if err := s.lookAgain(ctx, r, now, x); err != nil {
			return err
		}
	}
	if err := x.limited.postpone(); err != nil {
		return err
	}
	x.result.RetryAfter = x.limited.retryAfter()
	slices.SortStableFunc(x.result.Rejections, func(a, b Rejection) int { return a.Line - b.Line })
	return nil
}

func (s *Service) release(x *scratch) {
	for _, list := range x.blocks {
		for i := range list {
			b := &list[i]
			clear(b.Sets)
			b.Records, b.Sets, b.Dictionary, b.Events, b.Held = b.Records[:0], b.Sets[:0], 0, 0, false
		}
	}
	clear(x.waits)
	clear(x.missed)
	x.waits, x.missed, x.limited, x.result, x.lines, x.whole = x.waits[:0], x.missed[:0], limited{}, Result{}, false, false
	x.raw.Point, x.point.asked, x.replay = nil, false, false
	s.scratch.Put(x)
}

// each calls one for every event of a body. one returns how many bytes the event took, 0 when that cannot be told.
func (s *Service) each(format Format, body []byte, x *scratch, one func(line int, data []byte) (int, *Rejection)) *Rejection {
	if format >= Prometheus {
		return eachPoint(format, body, x, one)
	}
	start := space(body, 0)
	if start == len(body) {
		return refuse(CodeEmpty, "", nil, "The body is empty: send an event.")
	}
	switch {
	case format == NDJSON:
		x.result.Batch, x.lines = true, true
		return eachLine(body, one)
	case body[start] == '[':
		x.result.Batch = true
		return eachElement(body, start+1, one)
	}
	n, r := one(0, body)
	if r == nil && n > 0 {
		if end := space(body, n); end < len(body) {
			return refuse(CodeJSONInvalid, "", nil, "There is more after the end of the event, at byte %d: send one JSON object, an array, or application/x-ndjson.", end)
		}
	}
	return r
}

func eachLine(body []byte, one func(line int, data []byte) (int, *Rejection)) *Rejection {
	count := 0
	for line := 1; len(body) > 0; line++ {
		data := body
		if end := bytes.IndexByte(body, '\n'); end >= 0 {
			data, body = body[:end], body[end+1:]
		} else {
			body = nil
		}
		if space(data, 0) == len(data) {
			continue
		}
		if count++; count > MaxEvents {
			return refuse(CodeTooManyEvents, "", nil, "A body may have %d events at most.", MaxEvents)
		}
		one(line, data)
	}
	return nil
}

func eachElement(body []byte, i int, one func(line int, data []byte) (int, *Rejection)) *Rejection {
	broken := func(at int) *Rejection {
		return refuse(CodeJSONInvalid, "", nil, "The array is broken at byte %d: want events in { }, separated by commas, and a closing ].", at)
	}
	for line := 1; ; line++ {
		if i = space(body, i); i < len(body) && body[i] == ']' && line == 1 {
			return refuse(CodeEmpty, "", nil, "The array is empty: send an event.")
		}
		if line > MaxEvents {
			return refuse(CodeTooManyEvents, "", nil, "A body may have %d events at most.", MaxEvents)
		}
		if i == len(body) || body[i] == ']' {
			return broken(i)
		}
		n, r := one(line, body[i:])
		if n == 0 {
			return r
		}
		if i = space(body, i+n); i >= len(body) {
			return broken(i)
		}
		switch body[i] {
		case ',':
			i++
		case ']':
			if end := space(body, i+1); end < len(body) {
				return broken(end)
			}
			return nil
		default:
			return broken(i)
		}
	}
}

// one decodes an event, resolves it and adds its record to the blocks. A refused event is counted; it is also returned
// when it cannot be told where it ends, or when it is the whole body.
func (s *Service) one(r *resolver, now telemetry.Micros, line int, data []byte, x *scratch) (int, *Rejection) {
	if x.raw.Point != nil {
		return s.onePoint(r, now, line, data, x)
	}
	n, rejection := x.decoder.next(data, &x.raw)
	if n == 0 && line == 0 {
		return 0, rejection
	}
	if rejection == nil && x.lines {
		if end := space(data, n); end < len(data) {
			rejection = refuse(CodeJSONInvalid, "", nil, "There is more after the end of the event, at byte %d.", end)
		}
	}
	device := uuid.Nil
	if rejection == nil {
		device = x.raw.Device
		if rejection = s.resolve(r, now, x); rejection != nil && (rejection.Code == CodeUnknownDevice || rejection.Code == CodeUnknownParameter) {
			if rejection.Code == CodeUnknownDevice && s.waits(r, x) && s.hold(r, now, x) {
				return n, nil
			}
			rejection.Line = line
			x.missed = append(x.missed, missed{line: line, data: data, device: device, rejection: rejection})
			return n, nil
		}
	}
	if rejection != nil {
		rejection.Line = line
		if n == 0 && !x.lines { // the rest of the array is lost, and the body is refused as a whole
			return 0, rejection
		}
		s.refused(x, device, rejection)
		return n, nil
	}
	s.add(x)
	return n, nil
}

func (s *Service) refused(x *scratch, device uuid.UUID, r *Rejection) {
	x.result.Rejected++
	if r.Limit != nil {
		x.result.Limited++
	}
	if r.Code == CodeRateLimitedCustomer { // it is no single device's
		device = uuid.Nil
	}
	if len(x.result.Rejections) < maxReported {
		x.result.Rejections = append(x.result.Rejections, *r)
	}
	s.Reject(device, r)
}

// lookAgain asks whether the registry is newer than before, and judges the missed events for good.
func (s *Service) lookAgain(ctx context.Context, before *resolver, now telemetry.Micros, x *scratch) error {
	down := s.looks.look(ctx, s.Registry.Refresh)
	r := s.current()
	if r.discovery != nil {
		if s.holdMissed(r, now, x); len(x.missed) == 0 {
			return nil
		}
	}
	if down != nil && (x.whole || x.result.Accepted == 0) {
		return &telemetry.UnavailableError{Code: CodeRegistryDown, RetryAfter: 2 * time.Second,
			Err: fmt.Errorf("asking the registry for devices or parameters that are not known yet: %w", down)}
	}
	for i := range x.missed {
		if f := x.missed[i].fields; f != nil && down == nil && r == before {
			f.asked.Store(true)
		}
	}
	for _, m := range x.missed {
		rejection := m.rejection
		switch {
		case down != nil: // its neighbours are not made to wait for the answer
			rejection = refuse(CodeRegistryDown, rejection.Field, []byte(rejection.Input), "Not known yet, and the registry cannot be asked just now: send this event again.")
		case m.fields != nil || r != before:
			rejection = s.again(r, now, m, x)
		}
		if rejection == nil {
			continue
		}
		rejection.Line = m.line
		s.refused(x, m.device, rejection)
	}
	return nil
}

// again judges a missed event for good, and adds it to the blocks when it fits.
func (s *Service) again(r *resolver, now telemetry.Micros, m missed, x *scratch) *Rejection {
	if x.raw.Point != nil {
		return s.pointAgain(r, now, m, x)
	}
	_, rejection := x.decoder.next(m.data, &x.raw)
	if rejection == nil {
		rejection = s.resolve(r, now, x)
	}
	if rejection == nil {
		s.add(x)
	}
	return rejection
}

// add appends the record at hand to the blocks of its device's partition.
func (s *Service) add(x *scratch) {
	p, limit := telemetry.Partition(x.event.Device, s.Partitions), blockSize
	held := x.event.Held != nil
	if x.event.Time < x.late || held {
		p += telemetry.Backfill * s.Partitions
		limit = lateSize
	}
	list := x.blocks[p]
	size := 0
	if !held { // whose record has the keys itself
		size = x.event.Set.Size()
	}
	at := 0 // the block that is filled is the last one in use
	for at+1 < len(list) && list[at+1].Events > 0 {
		at++
	}
	if len(list) == 0 || list[at].Size()+len(x.record)+size > limit {
		if at++; at >= len(list) {
			list = append(list, telemetry.Block{})
			at = len(list) - 1
			x.blocks[p] = list
		}
	}
	b := &list[at]
	b.Records = append(b.Records, x.record...)
	b.Events++
	x.result.Accepted++
	if held {
		b.Held = true
		return
	}
	for _, set := range b.Sets {
		if set == x.event.Set {
			return
		}
	}
	b.Sets = append(b.Sets, x.event.Set)
	b.Dictionary += size
}

// queue hands the blocks over and waits until all are on disk.
func (s *Service) queue(ctx context.Context, x *scratch) error {
	failed := s.append(x)
	if err := waitAll(ctx, x.waits); err != nil {
		return err
	}
	return failed
}

// append hands the blocks over.
func (s *Service) append(x *scratch) (failed error) {
	for p, list := range x.blocks {
		for _, b := range list {
			if b.Events == 0 {
				continue
			}
			wait, err := s.Queue.Append(p, b)
			if err != nil {
				failed = err
				continue
			}
			x.waits = append(x.waits, wait)
		}
	}
	return failed
}

func waitAll(ctx context.Context, waits []func(context.Context) error) (failed error) {
	for _, wait := range waits {
		if err := wait(ctx); err != nil {
			failed = err
		}
	}
	return failed
}
