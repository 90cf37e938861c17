// Package dns has one job: to answer the name queries of sandboxes. Names is
// what each sandbox may see, an index that is plain data and a pure lookup.
// Server answers from it on sockets that the caller opened in each sandbox,
// and passes all else on to upstream resolvers, with a cache.
//
// A query is read by hand, on the bytes that came: the question, and what EDNS
// says. A query that is passed on keeps its bytes but for the ID, and so does
// the answer; so what this package does not know of DNS works all the same.
package dns
