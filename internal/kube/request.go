package kube

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// Request returns what decisions need of a CertificateSigningRequest.
func Request(o *certificatesv1.CertificateSigningRequest) csr.Request {
	r := csr.Request{
		Name: o.Name, UID: string(o.UID), SignerName: o.Spec.SignerName,
		Username: o.Spec.Username, UserUID: o.Spec.UID, Groups: o.Spec.Groups,
		ExpirationSeconds: o.Spec.ExpirationSeconds, PEM: o.Spec.Request,
		Created: o.CreationTimestamp.Time, State: state(&o.Status),
	}
	for _, u := range o.Spec.Usages {
		r.Usages = append(r.Usages, string(u))
	}
	if len(o.Spec.Extra) > 0 {
		r.Extra = make(map[string][]string, len(o.Spec.Extra))
		for k, v := range o.Spec.Extra {
			r.Extra[k] = v
		}
	}
	return r
}

func state(s *certificatesv1.CertificateSigningRequestStatus) csr.State {
	has := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range s.Conditions {
		has[c.Type] = true
	}
	switch {
	case len(s.Certificate) > 0:
		return csr.Issued
	case has[certificatesv1.CertificateDenied]:
		return csr.Denied
	case has[certificatesv1.CertificateFailed]:
		return csr.Failed
	case has[certificatesv1.CertificateApproved]:
		return csr.Approved
	}
	return csr.Pending
}

// controlPlaneLabel is one that a node cannot give itself (NodeRestriction).
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// Node returns what decisions need of a Node.
func Node(o *corev1.Node) csr.Node {
	_, controlPlane := o.Labels[controlPlaneLabel]
	n := csr.Node{Name: o.Name, UID: string(o.UID), ControlPlane: controlPlane, Deleting: o.DeletionTimestamp != nil}
	for _, a := range o.Status.Addresses {
		switch a.Type {
		case corev1.NodeInternalIP, corev1.NodeExternalIP:
			n.Addresses = append(n.Addresses, a.Address)
		case corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS:
			n.Names = append(n.Names, a.Address)
		}
	}
	for _, c := range o.Status.Conditions {
		n.Ready = n.Ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	return n
}
