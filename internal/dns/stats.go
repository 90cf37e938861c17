package dns

import "sync/atomic"

// Stats counts a sandbox's queries since its sockets were attached.
type Stats struct {
	Queries   uint64 // all that came
	Local     uint64 // answered from the names
	Cached    uint64
	Stale     uint64 // from the cache after its time, as no upstream answered
	Forwarded uint64 // asked upstream
	NXDomain  uint64 // of those that were not local
	Internal  uint64 // refused a way out, as all networks are internal
	Refused   uint64 // over the limits of what may go upstream
	Dropped   uint64 // over the limit of queries
	Failed    uint64 // no upstream had an answer
	TimedOut  uint64 // of those, because none answered in time
	Bad       uint64 // no proper query
}

// counters are Stats as they are counted.
type counters struct {
	queries, local, cached, stale, forwarded, nxdomain, internal, refused, dropped, failed, timedOut, bad atomic.Uint64
}

func (c *counters) read() Stats {
	return Stats{
		Queries: c.queries.Load(), Local: c.local.Load(), Cached: c.cached.Load(), Stale: c.stale.Load(),
		Forwarded: c.forwarded.Load(), NXDomain: c.nxdomain.Load(), Internal: c.internal.Load(),
		Refused: c.refused.Load(), Dropped: c.dropped.Load(), Failed: c.failed.Load(), TimedOut: c.timedOut.Load(), Bad: c.bad.Load(),
	}
}
