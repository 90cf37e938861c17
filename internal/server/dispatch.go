package server

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
)

// resource is the routes of one path, by method.
type resource map[string]route

// ServeHTTP answers one request to the path.
func (res resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	to, ok := res[method]
	if !ok {
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(res)), ", "))
		e := api.Errorf(api.Invalid, "%s is not a method of %s", r.Method, r.URL.Path)
		e.Op = "find route"
		writeProblem(w, http.StatusMethodNotAllowed, e)
		return
	}
	to.serve(w, r)
}

// serve runs the route and writes its answer or problem.
func (to route) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	p, err := parseParams(r.URL.RawQuery, to.query)
	var a answer
	if err == nil {
		a, err = to.do(r, p)
	}
	if err == nil && a.stream != nil {
		a.stream(w, r)
		return
	}
	to.done(r, to, err, time.Since(start))
	if err != nil {
		writeError(w, to.title(r), err)
		return
	}
	a.write(w)
}

// title is the route's verb and noun with the name out of the path.
func (to route) title(r *http.Request) string {
	return strings.TrimSpace(to.op + " " + r.PathValue("name"))
}

func unknownRoute(w http.ResponseWriter, r *http.Request) {
	writeError(w, "find route", api.Errorf(api.NotFound, "%s %s is not part of this API", r.Method, r.URL.Path))
}

// recovered answers a panic of a handler with a problem, and logs its stack.
func (s *service) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause)
			}
			s.Log.ErrorContext(r.Context(), "request panicked", "method", r.Method, "path", r.URL.Path,
				"panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			writeError(w, strings.ToLower(r.Method)+" "+r.URL.Path,
				api.Errorf(api.Failed, "towpathd failed inside: %v", cause).WithFix("its log has the place; please report it"))
		}()
		next.ServeHTTP(w, r)
	})
}
