//go:build !linux

package main

// unsynchronised: nothing is known elsewhere.
func unsynchronised() bool { return false }
