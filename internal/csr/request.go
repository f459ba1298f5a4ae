package csr

import "time"

// The built-in signers (k8s.io/api/certificates/v1).
const (
	KubeAPIServerClientSigner        = "kubernetes.io/kube-apiserver-client"
	KubeAPIServerClientKubeletSigner = "kubernetes.io/kube-apiserver-client-kubelet"
	KubeletServingSigner             = "kubernetes.io/kubelet-serving"
	LegacyUnknownSigner              = "kubernetes.io/legacy-unknown"
)

// State is how far a request has come.
type State string

// The states, by the conditions and the certificate of the object.
const (
	Pending  State = "Pending"
	Approved State = "Approved" // and not yet issued
	Denied   State = "Denied"
	Failed   State = "Failed"
	Issued   State = "Issued"
)

// Request is a CertificateSigningRequest with what the decision needs of it.
// Username, Groups and Extra are what the API server has put there; in a file
// they are only said.
type Request struct {
	Name       string
	UID        string
	SignerName string
	Username   string
	UserUID    string
	Groups     []string
	Extra      map[string][]string
	// Usages are those of k8s.io/api/certificates/v1, such as "client auth".
	Usages []string
	// ExpirationSeconds is the life that is asked for, nil where none is.
	ExpirationSeconds *int32
	// PEM is spec.request: what is asked for, as text.
	PEM     []byte
	Created time.Time
	State   State
}
