//go:build !nocloud

package main

// The clouds: most of the program, left out by the build tag nocloud.
import (
	_ "go.step.sm/crypto/kms/awskms"
	_ "go.step.sm/crypto/kms/azurekms"
	_ "go.step.sm/crypto/kms/cloudkms"
)
