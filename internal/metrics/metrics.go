// Package metrics counts what the daemon does, in the form Prometheus reads.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Set is the daemon's metrics. Each Set has a registry of its own.
type Set struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	passes   prometheus.Histogram
	ops      prometheus.Counter
	failures prometheus.Counter
	events   *prometheus.CounterVec
}

// New makes a Set. count says how many objects of a kind there are now.
func New(version string, count func(kind string) int) *Set {
	s := &Set{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "towpath_requests_total", Help: "Requests by verb and noun, and by the code they failed with (ok if they did not).",
		}, []string{"op", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "towpath_request_seconds", Help: "Time a request took, waiting for the kernel included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"op"}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "towpath_pass_seconds", Help: "Time of a pass that had something to apply.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		ops:      prometheus.NewCounter(prometheus.CounterOpts{Name: "towpath_ops_total", Help: "Ops applied to the kernel."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "towpath_unit_failures_total", Help: "Units that a pass could not bring into the kernel."}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "towpath_events_total", Help: "Events by action: heal counts repairs, throttle sandboxes that keep breaking things.",
		}, []string{"action"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "towpath_build_info", Help: "Always 1; the label is the version.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	s.registry.MustRegister(s.requests, s.duration, s.passes, s.ops, s.failures, s.events, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, kind := range []string{"network", "sandbox", "endpoint", "failing"} {
		s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "towpath_objects", Help: "Objects by kind; failing counts units that the kernel does not hold.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count(kind)) }))
	}
	return s
}

// PassedOn counts the clients that the daemon passes on to containers without an
// address of their family; now and since the start, and those there was no room for.
func (s *Set) PassedOn(traffic func() (open, total, refused int)) {
	for _, m := range []struct {
		name, help string
		counter    bool
		of         func() int
	}{
		{"towpath_passed_on_open", "Connections and UDP clients passed on to containers without an address of their family, now.", false, func() int { n, _, _ := traffic(); return n }},
		{"towpath_passed_on_total", "The same since the start.", true, func() int { _, n, _ := traffic(); return n }},
		{"towpath_passed_on_refused_total", "Those that there was no room for.", true, func() int { _, _, n := traffic(); return n }},
	} {
		value := func() float64 { return float64(m.of()) }
		if m.counter {
			s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: m.name, Help: m.help}, value))
		} else {
			s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.name, Help: m.help}, value))
		}
	}
}

// Handler answers GET /metrics.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
}

// Request counts a request; code is "ok" or that of its problem.
func (s *Set) Request(op, code string, took time.Duration) {
	s.requests.WithLabelValues(op, code).Inc()
	s.duration.WithLabelValues(op).Observe(took.Seconds())
}

// Pass counts a pass of the loop.
func (s *Set) Pass(ops, failed int, took time.Duration) {
	s.passes.Observe(took.Seconds())
	s.ops.Add(float64(ops))
	s.failures.Add(float64(failed))
}

// Event counts an event.
func (s *Set) Event(action string) { s.events.WithLabelValues(action).Inc() }
