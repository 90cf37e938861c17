package api

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// Problem is the wire form of an Error: a problem document (RFC 9457).
type Problem struct {
	Title string `json:"title"`
	// Status is the HTTP status the document is sent with.
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   Code   `json:"code"`
	Fix    string `json:"fix,omitempty"`
}

// Problem is the document that tells of e, with the status of its code.
func (e *Error) Problem() Problem {
	return Problem{Title: e.Op, Status: e.Code.HTTPStatus(), Detail: e.Detail, Code: e.Code, Fix: e.Fix}
}

// Err is the Error that p tells of.
func (p Problem) Err() *Error {
	return &Error{Code: p.Code, Op: p.Title, Detail: p.Detail, Fix: p.Fix}
}
