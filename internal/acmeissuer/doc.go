// Package acmeissuer answers CertificateRequests whose issuer is an ACME server
// (RFC 8555): it registers accounts, places orders, proves names by HTTP-01 and
// DNS-01, and brings the certificate back.
//
// An answer takes minutes, and the process may end at any moment. So what is known
// stands in the API, in Orders and Challenges of acme.cert-manager.io, as cert-manager
// writes them: [Orders.Step] takes one request as far as it goes without waiting, and
// any later Step, of this process or of another, or cert-manager itself, goes on from
// there. What to do next is decided by pure functions of these objects (next.go,
// pick.go); the rest of the package does it.
//
// What ACME servers, DNS servers and web servers answer is bounded in size and time,
// and is shown to users only where it is a problem document of ACME: who writes an
// Issuer chooses the address, and must not read by it what only this process reaches.
package acmeissuer
