// Package cluster says what a cluster of the lab consists of, and keeps it in one
// folder: its nodes and addresses, its credentials, and the components that run
// on it. It starts nothing.
package cluster
