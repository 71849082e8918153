package engine

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// Held events are replayed in their order, this many at a time, so that live ones do not wait for them.
const (
	discoverInterval = time.Second
	discoverIdle     = time.Minute // where no discovery is declared any more, and nothing changes
	discoverTimeout  = 30 * time.Second
	replayBatch      = 500
	replayPause      = 50 * time.Millisecond
)

// discovery keeps count of what is held of unknown devices, and replays it when they become known.
type discovery struct {
	*Engine
	mark   []telemetry.Offset // of the queue: what Pending counts as older was in it by then
	seen   int64              // the registry's revision when nothing was left to replay
	looked time.Time
	pause  time.Duration // until the next look
}

// discover keeps what is held in step with the database and the registry, until ctx ends.
func (e *Engine) discover(ctx context.Context) error {
	d := discovery{Engine: e, seen: -1, pause: discoverInterval}
	for failing := false; ; {
		err := d.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			e.log.Warn("held events wait, will go on trying", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.pause):
		}
	}
}

// look asks the database what is held. Without a declared discovery that is little work, and for what is left of an earlier one.
func (d *discovery) look(ctx context.Context) error {
	s := d.view.Snapshot()
	if s.Discovery == nil && s.Revision == d.seen && time.Since(d.looked) < discoverIdle {
		return nil
	}
	settled := d.mark != nil
	for i, o := range d.mark {
		stored, _ := d.stored(i)
		settled = settled && stored.Seq >= o.Seq
	}
	d.looked = time.Now()
	asking, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	counts, err := d.store.CountPending(asking)
	if err != nil {
		return err
	}
	d.pause = max(discoverInterval, 20*time.Since(d.looked)) // a database that finds it hard is asked less often
	if d.ingest.Pending.Settle(counts, settled) {
		d.mark = nil
	} else if d.mark == nil {
		for _, p := range d.queue.Partitions() {
			d.mark = append(d.mark, p.Newest())
		}
	}
	d.metrics.pending.Set(float64(len(counts)))
	var known []string
	for name := range counts {
		if deviceOf(s, name) != nil {
			known = append(known, name)
		}
	}
	if first, _ := d.crew.has(0); first && len(known) > 0 { // one process is enough
		return d.replay(ctx, s, known)
	}
	d.seen = s.Revision
	return nil
}

// deviceOf returns the device that held events call by a name, or nil.
func deviceOf(s *registry.Snapshot, name string) *registry.Device {
	if id, err := uuid.Parse(name); err == nil {
		if device := s.Device(id); device != nil {
			return device
		}
	}
	return s.DeviceByExternalID(name)
}

// replay queues what is held of devices that are known by now. Letters are deleted when their events are on disk: after a
// crash between they are queued again, and change nothing.
func (d *discovery) replay(ctx context.Context, s *registry.Snapshot, names []string) error {
	queued, unwanted := 0, 0
	defer func() {
		if queued+unwanted > 0 {
			d.log.Info("held events of devices that are known now were replayed", "devices", len(names), "events", queued, "refused", unwanted)
		}
	}()
	for after := int64(0); ; {
		list, err := d.store.HeldEvents(ctx, names, after, replayBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		after = list[len(list)-1].ID
		done, refused, err := d.replayBatch(ctx, s, list)
		if err != nil {
			return err
		}
		queued, unwanted = queued+done, unwanted+refused
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(replayPause):
		}
	}
}

func (d *discovery) replayBatch(ctx context.Context, s *registry.Snapshot, list []store.HeldEvent) (queued, unwanted int, err error) {
	var done []int64
	var refused []store.Unwanted
	var events []telemetry.Event
	var letters []int64
	for _, h := range list {
		if h.Err != nil { // somebody edited it
			refused = append(refused, store.Unwanted{ID: h.ID, Reason: ingest.CodeJSONInvalid, Message: h.Err.Error()})
			continue
		}
		events, letters = append(events, h.Event), append(letters, h.ID)
	}
	rejections, err := d.ingest.Replay(ctx, events)
	if err != nil {
		return 0, 0, err
	}
	failpoint.Hit("engine.replayed")
	for i, r := range rejections {
		switch {
		case r == nil:
			done = append(done, letters[i])
		case r.Code != ingest.CodeUnknownDevice: // it has gone again
			u := store.Unwanted{ID: letters[i], Reason: r.Code, Message: r.Error()}
			if device := deviceOf(s, events[i].Held.Device); device != nil {
				u.Device = device.ID
			}
			refused = append(refused, u)
		}
	}
	d.accepted.Add(int64(len(done)))
	d.metrics.queued.Add(float64(len(done)))
	// A stop does not come between an acknowledgement and what follows from it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discoverTimeout)
	defer cancel()
	return len(done), len(refused), d.store.Replayed(ctx, done, refused)
}

// dropPending drops what was held for too long.
func (e *Engine) dropPending(ctx context.Context) {
	d := e.view.Snapshot().EffectiveDiscovery()
	if first, _ := e.crew.has(0); d == nil || !first {
		return
	}
	n, err := e.store.DropPending(ctx, d.Hold)
	if err != nil && ctx.Err() == nil {
		e.log.Error("events that were held for long stay, will try again in an hour", "err", err)
	}
	if n > 0 {
		e.log.Warn("events of devices that nobody registered were dropped", "events", n, "held_for", d.Hold)
	}
}
