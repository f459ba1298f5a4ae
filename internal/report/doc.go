// Package report renders what kubepki found for people and for programs:
// tables, trees, JSON, YAML, SARIF, JUnit and metrics. It decides nothing.
//
// Machine output carries apiVersion and kind; within a version fields are only
// added. Times are RFC 3339 in UTC. Tables are for people and may change.
package report
