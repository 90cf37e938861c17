package trace

// stop completes what is known of a packet that was kept from leaving. That is
// told by a rule, without a time, and of an error without what it quotes; the
// programs in the kernel know when it was.
func (j *join) stop(s *Sighting) {
	if !s.Stopped {
		return
	}
	if q := s.Quoted; q != nil && !q.Flow.Dst.IsValid() {
		s.Quoted = &Packet{Flow: j.Flow} // as it was sent: that is what outside is told of
	}
	d, ok := j.Direction(s.Packet)
	if !ok {
		return
	}
	for i := range j.Drops {
		x := &j.Drops[i]
		if other, _ := j.Direction(x.Packet); other == d && x.Space == s.Space && x.filtered() {
			s.At = x.At
			return
		}
	}
}
