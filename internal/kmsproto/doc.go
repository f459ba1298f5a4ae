// Package kmsproto is the protocol between kubepki and kubepki-kms, which
// docs/kms.md describes: HTTP/1.1 over a unix socket, with JSON bodies.
//
// Keys have names that kubepki-kms is started with. Nothing in the protocol
// reads, makes or changes a private key.
package kmsproto
