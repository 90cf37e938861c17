package server

import (
	"net/http"
	"slices"
	"strings"
)

// Routes are all routes, as METHOD PATH PARAMETER,..., and those of them of which
// something is not described.
func Routes(c Config) (all, unclear []string) {
	s, params := &service{Config: c}, parameters()
	for _, to := range s.routes() {
		line := to.method + " " + to.path + " " + strings.Join(to.query, ",")
		all = append(all, line)
		if to.takes == nil && to.method == http.MethodPost || to.gives == nil && to.method != http.MethodDelete ||
			slices.ContainsFunc(to.query, func(name string) bool { return params[name].Value == nil }) {
			unclear = append(unclear, line)
		}
	}
	return all, unclear
}
