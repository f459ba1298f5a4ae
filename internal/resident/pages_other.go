//go:build !linux

package resident

// DropProgram does nothing: control planes are Linux machines.
func DropProgram() {}

func ofFiles() int { return 0 }
