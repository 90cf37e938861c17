package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/towpath/towpath/api"
)

// answer is what a route says when nothing failed.
type answer struct {
	status int
	// body is sent as JSON; a string is sent as plain text; nil is no body.
	body any
	// stream, where it is set, writes the answer instead.
	stream http.HandlerFunc
}

// ok answers a read.
func ok(body any) answer { return answer{status: http.StatusOK, body: body} }

// list answers a read of several things; none is an empty array, not null.
func list[T any](items []T) answer {
	if items == nil {
		items = []T{}
	}
	return ok(items)
}

// preview answers with ops.
func preview(ops []string) answer {
	if ops == nil {
		ops = []string{}
	}
	return ok(api.Preview{Ops: ops})
}

// created answers a request that made body, or with dry would have by ops.
func created(body any, ops []string, dry bool) answer {
	if dry {
		return preview(ops)
	}
	return answer{status: http.StatusCreated, body: body}
}

// removed answers a request that removed something, or with dry would have by ops.
func removed(ops []string, dry bool) answer {
	if dry {
		return preview(ops)
	}
	return answer{status: http.StatusNoContent}
}

func (a answer) write(w http.ResponseWriter) {
	switch body := a.body.(type) {
	case nil:
		w.WriteHeader(a.status)
	case string:
		writeBytes(w, a.status, "text/plain; charset=utf-8", []byte(body))
	default:
		writeJSON(w, a.status, "application/json", body)
	}
}

// writeJSON marshals before it writes anything, so that what cannot be
// marshalled is still a proper problem.
func writeJSON(w http.ResponseWriter, status int, media string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("marshal answer: " + err.Error())
	}
	writeBytes(w, status, media, append(data, '\n'))
}

// writeBytes sends a body. That the peer is gone shows in nothing but the
// write, and there is nobody left to tell.
func writeBytes(w http.ResponseWriter, status int, media string, data []byte) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// writeError sends err as a problem with the status of its code.
func writeError(w http.ResponseWriter, op string, err error) {
	var e *api.Error
	if !errors.As(err, &e) && errors.Is(err, context.DeadlineExceeded) {
		err = api.Errorf(api.Timeout, "%w", err)
	}
	err = api.InOp(op, err)
	errors.As(err, &e)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		writeProblem(w, http.StatusRequestEntityTooLarge, e)
		return
	}
	writeProblem(w, e.Code.HTTPStatus(), e)
}

// writeProblem sends e with a status of its own.
func writeProblem(w http.ResponseWriter, status int, e *api.Error) {
	p := e.Problem()
	p.Status = status
	writeJSON(w, status, api.ProblemType, p)
}
