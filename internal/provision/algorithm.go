package provision

import "github.com/kubepki/kubepki/internal/issue"

// SigningAlgorithm returns the algorithm of the service-account key for a
// cluster whose other keys are of algorithm a. Tokens are signed with RSA and
// ECDSA alone (JWTTokenGenerator in k/k pkg/serviceaccount/jwt.go), so that
// Ed25519 becomes ECDSA-P256. This is the one place where Kubernetes' components
// refuse Ed25519; kubeadm itself reads RSA and ECDSA keys only
// (TryLoadKeyFromDisk in k/k cmd/kubeadm/app/util/pkiutil/pki_helpers.go).
func SigningAlgorithm(a issue.Algorithm) issue.Algorithm {
	if a == issue.Ed25519 {
		return issue.ECDSAP256
	}
	return a
}
