package main

import "context"

// retransmissions measures batches of which every tenth is sent again, as by senders that did not hear the answer.
func retransmissions(ctx context.Context, b *bench, r *round) error {
	o, err := b.service.store(ctx, load{seq: b.service.seq, connections: batchConnections, batch: batchEvents, turns: b.size.chunkTurns, again: true})
	if err != nil {
		return err
	}
	r.set("retransmit.values", o.perSecond(), o.Bound())
	return nil
}

// sendAgain adds every tenth whole request of each connection once more, three requests later. It returns how many it added.
func sendAgain(requests [][][]byte) (all [][][]byte, more int) {
	const every, later = 10, 3
	all = make([][][]byte, len(requests))
	for c, list := range requests {
		for k, request := range list {
			all[c] = append(all[c], request)
			if k%every == later {
				all[c] = append(all[c], list[k-later])
				more++
			}
		}
	}
	return all, more
}
