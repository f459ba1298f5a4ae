// Package signer holds the keys that sign: a pair of files that is read again
// when it changes, or a key in a device or a cloud, reached through kubepki-kms.
package signer
