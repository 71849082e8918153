package ingest

import (
	"context"
	"sync"
	"time"
)

// lookPause is the least time from the end of a look past the snapshot to the next.
const lookPause = 200 * time.Millisecond

// looks bounds how often the registry is asked what the snapshot does not know: one look is under way at most, and pauses
// follow each. Whoever comes meanwhile shares the next, which then sees all that was committed before they came. So a sender
// of a million made-up ids waits for few looks, costs no memory, and what was really added just now is found.
type looks struct {
	unpaused bool // what is asked does not change

	mu    sync.Mutex
	next  *look         // that has not begun, and may be joined
	turn  chan struct{} // holds a value while nobody looks
	ended time.Time     // the look before
}

type look struct {
	done chan struct{}
	err  error
}

// look returns after a look that began after the call. Its error is that of refresh, or of ctx.
func (l *looks) look(ctx context.Context, refresh func(context.Context) error) error {
	l.mu.Lock()
	if l.turn == nil {
		l.turn = make(chan struct{}, 1)
		l.turn <- struct{}{}
	}
	mine := l.next
	if mine == nil {
		mine = &look{done: make(chan struct{})}
		l.next = mine
		l.mu.Unlock()
		l.run(context.WithoutCancel(ctx), mine, refresh) // for all who join
		return mine.err
	}
	l.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *looks) run(ctx context.Context, mine *look, refresh func(context.Context) error) {
	<-l.turn
	if pause := time.Until(l.ended.Add(lookPause)); pause > 0 && !l.unpaused {
		<-time.After(pause)
	}
	l.mu.Lock()
	l.next = nil // who comes from here on may have added something that this look does not see
	l.mu.Unlock()
	defer func() {
		l.ended = time.Now()
		l.turn <- struct{}{}
		close(mine.done)
	}()
	mine.err = refresh(ctx)
}
