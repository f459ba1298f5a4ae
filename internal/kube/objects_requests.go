package kube

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/trust"
)

// maxRequests bounds the requests that are told one by one.
const maxRequests = 5000

// requests reads those that wait for a certificate; of what is done nothing is kept.
func (r *objectReader) requests(ctx context.Context) (int, error) {
	r.found.Requests = []trust.WaitingRequest{}
	return eachPage(ctx, r.getter, "/apis/certificates.k8s.io/v1/certificatesigningrequests", query(""), pageSize, "", func(page []certificatesv1.CertificateSigningRequest) {
		for i := range page {
			s := state(&page[i].Status)
			if s == csr.Issued || s == csr.Denied || len(r.found.Requests) >= maxRequests {
				continue
			}
			r.found.Requests = append(r.found.Requests, waitingRequest(&page[i], s))
		}
	})
}

func waitingRequest(o *certificatesv1.CertificateSigningRequest, s csr.State) trust.WaitingRequest {
	w := trust.WaitingRequest{
		Place:  objectAt("certificatesigningrequest", "", o.Name, ""),
		Signer: o.Spec.SignerName, User: shortened(o.Spec.Username), Created: o.CreationTimestamp.Time, Since: o.CreationTimestamp.Time, State: strings.ToLower(string(s)),
	}
	for _, c := range o.Status.Conditions {
		if since := latest(c.LastTransitionTime.Time, c.LastUpdateTime.Time); since.After(w.Since) {
			w.Since = since
		}
		if c.Type == certificatesv1.CertificateFailed {
			w.Message = shortened(c.Reason + ": " + c.Message)
		}
	}
	blocks, err := trust.Blocks(o.Spec.Request)
	if err != nil || len(blocks) == 0 {
		return w
	}
	asked, err := x509.ParseCertificateRequest(blocks[0].DER)
	if err != nil {
		return w
	}
	const most = 100
	for _, ip := range asked.IPAddresses[:min(len(asked.IPAddresses), most)] {
		w.Names = append(w.Names, ip.String())
	}
	for _, name := range asked.DNSNames[:min(len(asked.DNSNames), most)] {
		w.Names = append(w.Names, shortened(name))
	}
	return w
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
