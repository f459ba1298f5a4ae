package controller

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// nodeUser is what the user of a node begins with.
const nodeUser = "system:node:"

// stateOf returns the state of an object and since when it has been so: the
// time by which k/k pkg/controller/certificates/cleaner measures its age. An
// approval beside a denial counts for nothing, as it does upstream.
func stateOf(o *certificatesv1.CertificateSigningRequest) (csr.State, time.Time) {
	state, since := csr.Pending, o.CreationTimestamp.Time
	for _, c := range o.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved:
			if state == csr.Pending {
				state, since = csr.Approved, c.LastUpdateTime.Time
			}
		case certificatesv1.CertificateDenied:
			state, since = csr.Denied, c.LastUpdateTime.Time
		case certificatesv1.CertificateFailed:
			if state != csr.Denied {
				state, since = csr.Failed, c.LastUpdateTime.Time
			}
		}
	}
	if len(o.Status.Certificate) > 0 {
		if state == csr.Pending {
			since = time.Time{} // nobody says when
		}
		state = csr.Issued
	}
	return state, since
}
