// Package reload holds what is made of files that somebody else changes: keys,
// certificates, bundles.
package reload
