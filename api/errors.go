package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Code is the stable kind of an error; scripts may depend on it.
type Code string

// The codes a request can fail with.
const (
	NotFound      Code = "notFound"
	AlreadyExists Code = "alreadyExists"
	InUse         Code = "inUse"
	Invalid       Code = "invalid"
	Exhausted     Code = "exhausted"
	PortTaken     Code = "portTaken"
	Conflict      Code = "conflict"
	Denied        Code = "denied"
	Timeout       Code = "timeout"
	Unsupported   Code = "unsupported"
	Unavailable   Code = "unavailable"
	Failed        Code = "failed"
)

// Error is a refusal a user can act on: what failed, why, and what to do. Its
// JSON form is a problem document (RFC 9457).
type Error struct {
	Code Code `json:"code"`
	// Op is the verb and noun that failed: "create network front".
	Op string `json:"title"`
	// Detail is the cause, the kernel's own text included.
	Detail string `json:"detail"`
	// Fix is what the user can do about it; may be empty.
	Fix string `json:"fix,omitempty"`

	cause error
}

// Errorf makes an Error of a code. A %w in the format is kept as the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), cause: errors.Unwrap(err)}
}

// WithFix adds what the user can do.
func (e *Error) WithFix(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// Error is one line: "create network front: subnet 10.0.0.0/24 overlaps ...".
func (e *Error) Error() string {
	s := e.Detail
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap gives the cause kept by Errorf.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf is the code of the first Error in err's chain, Failed without one.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Failed
}

// InOp names the verb in which err happened, keeping code and fix.
func InOp(op string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: Failed, Op: op, Detail: err.Error(), cause: err}
	}
	if e.Op != "" {
		return err
	}
	c := *e
	c.Op = strings.TrimSpace(op) // the name in it may be empty
	return &c
}

// HTTPStatus is the status a problem document of this code is sent with.
func (c Code) HTTPStatus() int {
	switch c {
	case NotFound:
		return http.StatusNotFound
	case AlreadyExists, InUse, Conflict, PortTaken:
		return http.StatusConflict
	case Invalid:
		return http.StatusBadRequest
	case Exhausted:
		return http.StatusInsufficientStorage
	case Denied:
		return http.StatusForbidden
	case Timeout:
		return http.StatusGatewayTimeout
	case Unsupported:
		return http.StatusNotImplemented
	case Unavailable:
		return http.StatusServiceUnavailable
	case Failed:
	}
	return http.StatusInternalServerError
}
