package podcert

import "crypto"

// DefaultMaxExpirationSeconds is what the API server writes into a request that
// names no life (k8s.io/api/certificates/v1, maxExpirationSeconds).
const DefaultMaxExpirationSeconds = 86400

// Request is a PodCertificateRequest with what the decision needs of it.
type Request struct {
	Namespace  string
	Name       string
	SignerName string
	// Pod, ServiceAccount and Node are those that the kubelet names. The pod and
	// the service account are in the namespace of the request.
	Pod            Reference
	ServiceAccount Reference
	Node           Reference
	// MaxExpirationSeconds bounds the life of the certificate; nil:
	// [DefaultMaxExpirationSeconds].
	MaxExpirationSeconds *int32
	// PKCS10 is spec.stubPKCS10Request in DER. Nothing but its key counts.
	PKCS10 []byte
	// PublicKey is spec.pkixPublicKey in DER, which kubelets before 1.36 send in
	// place of PKCS10. ProofOfPossession is made by that key.
	PublicKey         []byte
	ProofOfPossession []byte
	// Annotations are spec.unverifiedUserAnnotations: the pod's author wrote them.
	Annotations map[string]string
}

// Reference names an object, and which of all that ever had the name is meant.
type Reference struct{ Name, UID string }

// Facts is what was read from the API server after the request was made.
type Facts struct {
	// Pod is the pod of the request's name; nil: there is none.
	Pod *Pod
	// ServiceAccountUID and NodeUID are those of the objects that have the names
	// of the request now; "": there is none.
	ServiceAccountUID string
	NodeUID           string
	// AuthorityKey is the one that signs; nil: not known.
	AuthorityKey crypto.PublicKey
}

// Pod is a pod with what decisions need of it.
type Pod struct {
	UID            string
	ServiceAccount string
	Node           string // "": not scheduled
	// Mirror tells that the pod stands for one that a kubelet has from a file.
	Mirror bool
	// Finished tells that the pod has ended and never runs again.
	Finished bool
	// Signers are those of its podCertificate volumes.
	Signers []string
}
