// Program kubepki-kms signs digests with keys that are held by a PKCS#11 device
// or a cloud, for kubepki, which asks for signatures over a unix socket. It is
// a process of its own because PKCS#11 needs cgo and cloud libraries are large,
// so that kubepki needs neither; and so that the one who talks to the API
// server does not know the PIN.
//
// docs/kms.md of the repository describes how it is used, and the protocol.
package main
