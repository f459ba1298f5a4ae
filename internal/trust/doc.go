// Package trust is the model of a cluster's credentials: which component shows
// what to whom, and by which anchors the other side judges it.
//
// It is pure data and pure functions. It never reads a file, never dials, never
// asks for the time and never holds a private key: of a key at hand it knows
// only the public half. Everything else in kubepki either produces this model
// (package layout reads it from disk) or reads it (packages check and report).
//
// A [Graph] is made of [Link]s. Each link has two halves: the callee's serving
// certificate judged by the caller, and the caller's certificate judged by the
// callee. [Graph.JudgeServer] and [Graph.JudgeClient] say what is wrong with a half.
package trust
