// Package testpki makes the credentials of whole clusters for tests, and knobs
// to break one thing in them. Only tests import it.
package testpki
