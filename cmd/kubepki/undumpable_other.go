//go:build !linux

package main

// undumpable does nothing: control planes are Linux machines.
func undumpable() {}
