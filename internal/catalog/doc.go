// Package catalog holds what a distribution of Kubernetes consists of, as
// tables: which credentials each component shows, with which subject, names
// and usages, where they stand, and which flag points at them.
//
// It is pure. [Cluster.Entries] says what a wanted cluster needs, [Wire] turns
// the facts read from nodes into the trust graph that packages check and
// report read.
package catalog
