// Package certmanager serves the API cert-manager.io: it watches Certificates,
// CertificateRequests, Issuers and the Secrets of certificates, lets package workload
// decide, and writes what comes of it, as cert-manager would.
//
// All that it knows it has from the API, so that a process which ends at any moment
// loses nothing. What it keeps of an object is small: no key, no managed fields, of a
// Secret facts, of a request digests. What it has written it knows at once and waits for
// no watch to tell of it.
package certmanager
