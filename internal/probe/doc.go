// Package probe looks at running servers over the network: what each presents,
// whom it names as authorities of its clients, and whether it lets the callers
// in that it should. It changes nothing: the one object that it creates is a
// SelfSubjectReview, which no server keeps.
//
// It judges nothing. A server is not verified while it is looked at, so that
// one with a bad certificate can be described; no bearer token is ever sent,
// and what an apiserver says is kept only when its certificate verifies.
package probe
