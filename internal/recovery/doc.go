// Package recovery plans how a cluster comes back whose certificates ended while
// nobody looked: what time has done to it ([Look]), whether the clock that says so is
// to be believed ([Clock]), which authorities are certified again, with the names and
// keys that they have, which copies of their certificates are exchanged, and which
// credentials are made anew ([Plan]).
//
// It reads a graph and touches no disk. Nothing is remembered: a second run looks
// again, and does what is left.
package recovery
