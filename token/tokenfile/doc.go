// Package tokenfile is a source of keys for a [token.Verifier]: files, which are
// read again when they change, so that keys are rotated without a restart.
package tokenfile
