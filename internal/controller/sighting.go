package controller

import (
	"strconv"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// sighting is what the ledger takes from an object of the API server. It is
// small where nothing is to be done on the request.
type sighting struct {
	// ObjectMeta has the name, the UID and the resourceVersion: the reflector's
	// own store asks for them.
	metav1.ObjectMeta
	kept
	asked asked
	// body is the object, nil where nothing is to be done on it.
	body *certificatesv1.CertificateSigningRequest
}

// kept are those of a request that are kept. Times are in seconds of Unix
// time; 0: unknown.
type kept struct {
	version uint64 // the resourceVersion
	state   csr.State
	made    int64 // when it was made
	since   int64 // since when it has been in its state
	ends    int64 // when its certificate ends
}

// see looks at an object, which belongs to the sighting from now on. wants tells
// whether something is to be done on requests of a signer in a state.
func see(o *certificatesv1.CertificateSigningRequest, wants func(signer string, state csr.State) bool) *sighting {
	state, since := stateOf(o)
	s := &sighting{
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion},
		kept:       kept{version: version(o.ResourceVersion), state: state, made: unix(o.CreationTimestamp.Time), since: unix(since)},
	}
	if state == csr.Issued {
		if leaf, ok := readLeaf(o.Status.Certificate); ok {
			s.ends = unix(leaf.notAfter)
		}
	}
	if state != csr.Denied && state != csr.Failed {
		s.asked = readAsked(o.Spec.Request)
	}
	if wants(o.Spec.SignerName, state) {
		s.body = o
		o.ManagedFields = nil
	}
	return s
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// version returns a resourceVersion as a number, which it is for every resource
// of the API server itself (k8s.io/apimachinery/pkg/util/resourceversion); 0
// where it is none.
func version(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}
