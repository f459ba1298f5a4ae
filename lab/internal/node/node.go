// Package node puts a program of the lab into the root folder of its node.
package node

import (
	"fmt"
	"os"
	"syscall"
)

// RootEnv is the environment variable that names the root folder of the node.
const RootEnv = "KUBEPKI_LAB_ROOT"

// Enter makes the folder that [RootEnv] names the program's "/" and removes
// the variable. It does nothing when the variable is not set. It must be called
// before anything is opened, and needs the right to chroot.
func Enter() error {
	root := os.Getenv(RootEnv)
	if root == "" {
		return nil
	}
	if err := syscall.Chroot(root); err != nil {
		return fmt.Errorf("change root to %s (from %s): %w", root, RootEnv, err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("change to /: %w", err)
	}
	return os.Unsetenv(RootEnv)
}
