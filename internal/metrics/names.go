package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSandboxes is how many sandboxes have counters of their own: each label
// value is a series that Prometheus keeps. Of the others the sum is told, as
// sandbox "".
const maxSandboxes = 200

// Names adds counters of name queries, by sandbox and by how they were answered.
func (s *Set) Names(counts func() map[string]map[string]uint64) {
	s.registry.MustRegister(&names{counts, prometheus.NewDesc("towpath_dns_queries_total",
		"Name queries by sandbox and result: local, cached and stale were answered here; forwarded went upstream, of which nxdomain, failed and "+
			"timeout tell the end; internal, refused and dropped met a limit; bad were no proper query.",
		[]string{"sandbox", "result"}, nil)})
}

// names reads the counters when it is asked.
type names struct {
	counts func() map[string]map[string]uint64
	desc   *prometheus.Desc
}

// Describe tells what there will be.
func (n *names) Describe(ch chan<- *prometheus.Desc) { ch <- n.desc }

// Collect reads all counters.
func (n *names) Collect(ch chan<- prometheus.Metric) {
	rest := map[string]uint64{}
	for i, sandbox := range sorted(n.counts()) {
		for result, count := range sandbox.counts {
			if i >= maxSandboxes {
				rest[result] += count
				continue
			}
			ch <- prometheus.MustNewConstMetric(n.desc, prometheus.CounterValue, float64(count), sandbox.name, result)
		}
	}
	for result, count := range rest {
		ch <- prometheus.MustNewConstMetric(n.desc, prometheus.CounterValue, float64(count), "", result)
	}
}

type counted struct {
	name   string
	counts map[string]uint64
}

// sorted is in order of names, so that the same sandboxes have counters of their
// own each time.
func sorted(all map[string]map[string]uint64) []counted {
	var out []counted
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, counted{name, all[name]})
	}
	return out
}
