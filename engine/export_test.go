package engine

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// Gatherer gives tests the service's metrics.
func (e *Engine) Gatherer() prometheus.Gatherer { return e.registry }

// PublishRaw puts any bytes into a partition of the queue.
func (e *Engine) PublishRaw(ctx context.Context, partition int, data []byte) error {
	nc, err := e.server.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.Publish(ctx, fmt.Sprintf("ingress.events.%d", partition), data)
	return err
}

// MeasureLedger looks at the ledger now.
func (e *Engine) MeasureLedger(ctx context.Context) error { return e.measureLedger(ctx) }
