package api

// Resolution is what a sandbox is told when it asks for a name.
type Resolution struct {
	Sandbox string `json:"sandbox"`
	Name    string `json:"name"`
	// Answers has one for each type that was asked for.
	Answers []Answer `json:"answers"`
}

// Found reports whether there is an answer with something in it.
func (r *Resolution) Found() bool {
	for _, a := range r.Answers {
		if len(a.Records) > 0 {
			return true
		}
	}
	return false
}

// Answer is that to one question, and where it comes from.
type Answer struct {
	Type string `json:"type"`
	// Code is the response code of DNS: "NOERROR", "NXDOMAIN", "SERVFAIL", ...
	Code    string   `json:"code"`
	Records []Record `json:"records"`
	// Source is "names", "cache", "upstream" or "nobody".
	Source string `json:"source"`
	// Network is that of a local name.
	Network string `json:"network,omitempty"`
	// Upstream gave the answer, also if it was kept since.
	Upstream   string  `json:"upstream,omitempty"`
	AgeSeconds float64 `json:"ageSeconds,omitempty"`
	// Stale: its time is over, and no upstream answers.
	Stale bool `json:"stale,omitempty"`
	// Why says in words what the name is, or why there is no answer.
	Why string `json:"why"`
}

// Record is one of an answer, its data as in a zone file.
type Record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"`
}
