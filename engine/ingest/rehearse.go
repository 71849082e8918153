package ingest

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Rehearsal judges bodies as a Service does, against a declaration and with a clock that its caller sets. It stores nothing.
// It is not safe for concurrent use.
type Rehearsal struct {
	snapshot *registry.Snapshot
	service  *Service
	now      time.Time

	decoder telemetry.Decoder
	batch   telemetry.Batch
}

// NewRehearsal returns a Rehearsal for what is declared. Begin must be called before Judge.
func NewRehearsal(declared *registry.Snapshot) *Rehearsal {
	objects := make([]registry.Object, 0, len(declared.Devices))
	for o := range declared.Objects {
		switch d := o.(type) {
		case *registry.Device: // the registry would number them; the limits count by number
			numbered := *d
			numbered.Ref = int32(len(objects) + 1)
			o = &numbered
		case *registry.Discovery: // nobody would approve what is held
			continue
		}
		objects = append(objects, o)
	}
	return &Rehearsal{snapshot: registry.NewSnapshot(objects)}
}

// Begin forgets all that came, so that all limits have their full bursts.
func (r *Rehearsal) Begin() {
	r.service = &Service{Registry: rehearsed{r.snapshot}, Queue: r, Partitions: 1,
		Reject: func(uuid.UUID, *Rejection) {}, clock: func() time.Time { return r.now }, looks: looks{unpaused: true}}
}

// Judge takes a body that comes at a time, which is not before that of the call before, as Service.Accept does. It returns the events that a worker would read of the queue,
// which hold until the next call.
func (r *Rehearsal) Judge(now time.Time, format Format, body []byte) (Result, []telemetry.Event, error) {
	r.now = now
	r.batch.Reset()
	result, err := r.service.Accept(context.Background(), format, body)
	return result, r.batch.Events, err
}

// Append makes a frame of a block, as the queue does, and reads it, as a worker does.
func (r *Rehearsal) Append(_ int, b telemetry.Block) (wait func(context.Context) error, err error) {
	frame := append(make([]byte, telemetry.HeaderSize, telemetry.HeaderSize+b.Size()), b.Records...)
	frame = telemetry.SealFrame(frame, telemetry.Header{Events: b.Events, ReceivedAt: telemetry.MicrosOf(r.now), Held: b.Held}, b.Sets)
	if _, err := r.decoder.Append(&r.batch, frame); err != nil {
		return nil, err
	}
	return func(context.Context) error { return nil }, nil
}

// rehearsed is a declaration as a Registry: there is nothing newer.
type rehearsed struct{ snapshot *registry.Snapshot }

func (d rehearsed) Snapshot() *registry.Snapshot  { return d.snapshot }
func (d rehearsed) Refresh(context.Context) error { return nil }
