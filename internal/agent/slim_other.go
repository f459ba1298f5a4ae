//go:build !linux

package agent

// dropProgram does nothing: control planes are Linux machines.
func dropProgram() {}
