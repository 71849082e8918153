package engine

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/nsready/nsready/engine/mqtt"
	"github.com/nsready/nsready/engine/telemetry"
	"github.com/nsready/nsready/engine/worker"
)

// metrics of the service. The names without a prefix are the original platform's.
type metrics struct {
	queued, success, refused, dead prometheus.Counter // events
	invalid, unqueued              prometheus.Counter // errors: events, requests
	fields, untimed                prometheus.Counter // of points
	limitedDevice, limitedCustomer prometheus.Counter // events
	connections                    prometheus.Counter // refused
	held                           prometheus.Counter // events
	pending                        prometheus.Gauge   // devices
	request                        prometheus.Histogram
	worker                         worker.Metrics
	mqtt                           mqtt.Metrics
	rate                           prometheus.Gauge
	dbStatus, lastPacket           *prometheus.GaugeVec
	dbLatency                      prometheus.Histogram
	imbalance                      prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, e *Engine) *metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ingest_events_total",
		Help: "Events by outcome: queued (acknowledged, on disk), success (stored in the database), error (refused), dlq (dead-lettered)."}, []string{"status"})
	errors := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ingest_errors_total",
		Help: "Errors by type: validation (events refused), field (fields refused of points that are accepted), queue (requests not queued), processing (events dead-lettered), database (failed flushes)."}, []string{"error_type"})
	limited := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nsready_rate_limited_events_total",
		Help: "Events refused because more came than the declared limits allow, by whose limit it was: device or customer."}, []string{"limit"})
	buckets := []float64{.0005, .001, .002, .003, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	m := &metrics{
		queued: events.WithLabelValues("queued"), success: events.WithLabelValues("success"),
		refused: events.WithLabelValues("error"), dead: events.WithLabelValues("dlq"),
		invalid: errors.WithLabelValues("validation"), unqueued: errors.WithLabelValues("queue"),
		fields: errors.WithLabelValues("field"),
		held: prometheus.NewCounter(prometheus.CounterOpts{Name: "nsready_held_events_total",
			Help: "Events of unknown devices that were queued to be held."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "nsready_pending_devices",
			Help: "Devices that are not registered and of which events are held, a second or so old."}),
		untimed: prometheus.NewCounter(prometheus.CounterOpts{Name: "nsready_ingest_untimed_total",
			Help: "Points accepted without a time of their own, which got that of their receipt: sent again, they are stored again."}),
		limitedDevice: limited.WithLabelValues("device"), limitedCustomer: limited.WithLabelValues("customer"),
		connections: prometheus.NewCounter(prometheus.CounterOpts{Name: "nsready_refused_connections_total",
			Help: "HTTP connections closed at once because more were open than the declared limits allow."}),
		request: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "collector_request_latency_seconds",
			Help: "Time from a request's arrival to its answer.", Buckets: buckets}),
		rate: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ingest_rate_per_second", Help: "Events queued per second, over the last seconds."}),
		dbStatus: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "db_status",
			Help: "1 for the database's present status, 0 for the other."}, []string{"status"}),
		dbLatency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "db_latency_seconds",
			Help: "Time of a database's answer to a ping, one a second.", Buckets: buckets}),
		lastPacket: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "last_packet_timestamp",
			Help: "Time of the newest event of a site's devices, as Unix seconds; up to 15 s old."}, []string{"site_id"}),
		imbalance: prometheus.NewGauge(prometheus.GaugeOpts{Name: "nsready_ledger_imbalance",
			Help: "Events that the ledger does not account for, too few or too many; 0 always, up to 15 s old."}),
	}
	commit := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "worker_db_commit_seconds",
		Help: "Time of a worker's transaction.", Buckets: buckets})
	gaps := prometheus.NewCounter(prometheus.CounterOpts{Name: "nsready_queue_missing_frames_total", Help: "Frames that should be in the queue and are not."})
	letters := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ingest_dlq_total",
		Help: "Dead letters by reason: an SQLSTATE, unknown_device, pending_device for held events, or frame for a whole frame that could not be read."}, []string{"reason"})
	account := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nsready_ledger_events_total",
		Help: "Events that the workers have committed, by outcome as the database counts them: accepted, which is the sum of stored, merged, duplicate, dead and lost."}, []string{"outcome"})
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ingest_latency_seconds",
		Help: "Time from an event's receipt to the commit of its row, observed once a frame.", Buckets: buckets})
	m.worker = worker.Metrics{Stored: m.success, Dead: deadCounter{m.dead, errors.WithLabelValues("processing")}, Gaps: gaps,
		Letters: letters, Ledger: ledger(account), Commit: commit, Latency: latency, Failures: errors.WithLabelValues("database")}
	publishes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nsready_mqtt_publishes_total",
		Help: "Publishes over MQTT by outcome: queued (on disk), refused (for good, acknowledged all the same), unavailable (not acknowledged)."}, []string{"outcome"})
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nsready_mqtt_closed_connections_total",
		Help: "MQTT connections that the service ended, by reason: protocol, timeout, unavailable, limit, taken_over."}, []string{"reason"})
	m.mqtt = mqtt.Metrics{
		Connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "nsready_mqtt_connections", Help: "MQTT connections that are open."}), Closed: closed,
		Queued: publishes.WithLabelValues("queued"), Refused: publishes.WithLabelValues("refused"), Unavailable: publishes.WithLabelValues("unavailable"),
	}
	for _, reason := range mqtt.Reasons {
		closed.WithLabelValues(reason)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	start := time.Now()
	r.MustRegister(events, errors, limited, m.connections, m.held, m.pending, m.untimed, m.request, m.rate, m.dbStatus, m.dbLatency, m.lastPacket, m.imbalance,
		commit, gaps, letters, account, latency,
		m.mqtt.Connections, publishes, closed,
		gauge("ingest_queue_depth", "Events acknowledged and not stored yet.", func() float64 { return float64(e.depth().QueueDepth) }),
		gauge("ingest_consumer_pending", "Events in the queue that no worker has taken.", func() float64 { return float64(e.depth().Pending) }),
		gauge("ingest_consumer_ack_pending", "Events that a worker has taken and not committed.", func() float64 { return float64(e.depth().AckPending) }),
		gauge("nsready_queue_bytes", "Size of the frames in the queue, those kept for replay included.", e.queueBytes),
		gauge("system_uptime_seconds", "Time since the service was started.", func() float64 { return time.Since(start).Seconds() }),
		thresholdCollector{e}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if e.server != nil {
		r.MustRegister(
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "nsready_queue_restarts_total",
				Help: "Restarts of the embedded JetStream server after its store broke."}, func() float64 { return float64(e.server.Restarts()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "nsready_queue_damaged_frames_total",
				Help: "Damaged frames found in the files of the embedded JetStream server when it was started."}, func() float64 { return float64(e.server.Damaged()) }))
	}
	return m
}

// ledger returns what adds a tally to the counters of its outcomes.
func ledger(v *prometheus.CounterVec) func(telemetry.Tally) {
	accepted, stored, merged := v.WithLabelValues("accepted"), v.WithLabelValues("stored"), v.WithLabelValues("merged")
	duplicate, dead, lost := v.WithLabelValues("duplicate"), v.WithLabelValues("dead"), v.WithLabelValues("lost")
	return func(t telemetry.Tally) {
		accepted.Add(float64(t.Accepted))
		stored.Add(float64(t.Stored))
		merged.Add(float64(t.Merged))
		duplicate.Add(float64(t.Duplicate))
		dead.Add(float64(t.Dead))
		lost.Add(float64(t.Lost))
	}
}

// deadCounter counts dead letters in both families that report them.
type deadCounter struct {
	prometheus.Counter
	also prometheus.Counter
}

func (c deadCounter) Add(n float64) {
	c.Counter.Add(n)
	c.also.Add(n)
}

// thresholdCollector exports the declared thresholds on the platform, for alert rules to compare with.
type thresholdCollector struct{ e *Engine }

var thresholdDesc = prometheus.NewDesc("nsready_threshold", "Declared threshold on a metric of the platform; percent for rates and shares, seconds for latencies.", []string{"metric", "severity"}, nil)

func (c thresholdCollector) Describe(ch chan<- *prometheus.Desc) { ch <- thresholdDesc }

func (c thresholdCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.e.view.Snapshot().Platform {
		if p.Warning.Set {
			ch <- prometheus.MustNewConstMetric(thresholdDesc, prometheus.GaugeValue, p.Warning.Value, p.Addr.Name(), "warning")
		}
		if p.Critical.Set {
			ch <- prometheus.MustNewConstMetric(thresholdDesc, prometheus.GaugeValue, p.Critical.Value, p.Addr.Name(), "critical")
		}
	}
}
