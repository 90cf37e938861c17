package api

// DoctorSchema is the version of the JSON form of a Diagnosis.
const DoctorSchema = 1

// Diagnosis is what is wrong on a host, by the state of its kernel.
type Diagnosis struct {
	Schema   int       `json:"schema"`
	Findings []Finding `json:"findings"`
	// Checks are those that were made, and what came of each.
	Checks []CheckResult `json:"checks"`
}

// Found reports whether anything is wrong. A remark is not.
func (d *Diagnosis) Found() bool {
	for _, f := range d.Findings {
		if f.Severity != Remark && !f.Fixed {
			return true
		}
	}
	return false
}

// Unsure reports whether a check could not be made to its end.
func (d *Diagnosis) Unsure() bool {
	for _, c := range d.Checks {
		if c.Unsure != "" {
			return true
		}
	}
	return false
}

// Severity of a finding.
type Severity string

// The severities.
const (
	// Fault: packets are lost that should not be.
	Fault Severity = "fault"
	// Risk: it works, as long as nothing else happens.
	Risk Severity = "risk"
	// Remark: worth knowing, nothing is wrong with it.
	Remark Severity = "remark"
)

// Finding is one thing that is wrong.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Summary says what is wrong, of what, in one line.
	Summary  string     `json:"summary"`
	Evidence []Evidence `json:"evidence"`
	// Consequence is what comes of it, Fix a command that mends it.
	Consequence string `json:"consequence"`
	Fix         string `json:"fix"`
	// Ours: what is wrong is Towpath's own, and --fix mends it. Settable: --fix
	// with the name of the check does.
	Ours     bool `json:"ours"`
	Settable bool `json:"settable"`
	Fixed    bool `json:"fixed,omitzero"`
	// Set are the parameters that a fix writes.
	Set []Setting `json:"set,omitempty"`
}

// Evidence is what was read, and where.
type Evidence struct {
	Where string `json:"where"`
	What  string `json:"what"`
}

// Setting is a parameter of the host below /proc/sys and the value it should have.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Fix asks for more than a diagnosis: what is Towpath's own is mended, and of the
// checks named what can be set is set.
type Fix struct {
	Checks []string `json:"checks"`
}

// CheckResult is what came of a check.
type CheckResult struct {
	Name     string `json:"name"`
	Findings int    `json:"findings"`
	// Unsure says why it could not be made to its end; "": it could.
	Unsure string `json:"unsure,omitzero"`
}
