package why

import (
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CauseRequestFailed is that of a CertificateRequest without a Certificate, whose signer
// has given it up. Nobody asks anew.
const CauseRequestFailed = "request-failed"

// StandIn takes the place of the Certificate of a request that has none: of csi drivers,
// of meshes, of people. It is for [Gathered.Certificate].
func StandIn(r *cmapi.CertificateRequest) *cmapi.Certificate {
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name, CreationTimestamp: r.CreationTimestamp},
		Spec:       cmapi.CertificateSpec{IssuerRef: r.Spec.IssuerRef},
	}
}

// ExplainRequest finds the first cause for which a CertificateRequest without a Certificate
// has not been answered. Certificate is a [StandIn], and the request is the only one of
// Requests.
func ExplainRequest(g *Gathered) Answer {
	t := newTeller(g)
	t.alone = "certificaterequest"
	t.certificateID = t.id(t.alone, t.o.Name)
	a := Answer{Kind: t.alone, Namespace: t.o.Namespace, Name: t.o.Name, Steps: append([]Step{t.requestStep(), t.issuerStep()}, t.behindIssuer()...), State: Ready}
	if t.request == nil || len(t.request.Status.Certificate) > 0 {
		return a
	}
	return t.answer(a, t.issuer, t.requests, t.failedRequest, t.notSeen, t.underWay)
}

func (t *teller) failedRequest() *Cause {
	c := requestCondition(t.request, cmapi.CertificateRequestConditionReady)
	if c == nil || c.Reason != cmapi.CertificateRequestReasonFailed {
		return nil
	}
	return &Cause{ID: CauseRequestFailed, Where: t.certificateID, Text: "the signer has given it up: " + orText(c.Message, "nothing says why"), Fix: t.renew(),
		Advice: "who has made it asks anew then, once what the message says is mended"}
}

// ExplainIssuer finds the first cause for which an issuer that is there cannot sign.
// Certificate is an empty one in the namespace of the issuer, "" for a ClusterIssuer, and
// names it in issuerRef.
func ExplainIssuer(g *Gathered) Answer {
	t := newTeller(g)
	t.alone = "issuer"
	a := Answer{Kind: t.alone, Namespace: t.o.Namespace, Name: t.issuerRef.Name, State: Ready, Steps: []Step{t.issuerStep()}}
	if t.issuerRef.Kind != cmapi.IssuerKind || !t.ownGroup() {
		a.Kind = kindText(t.issuerRef)
	}
	if t.isCA() {
		a.Steps = append(a.Steps, t.authorityStep())
	}
	return t.answer(a, t.issuer, t.authorityUnseen, t.issuerUnderWay)
}

func (t *teller) isCA() bool { return t.Issuer.Object != nil && t.Issuer.Object.Type == "ca" }

// isReady tells whether the issuer says so of its spec as it is.
func (t *teller) issuerIsReady() bool {
	i := t.Issuer.Object
	return i != nil && i.Ready != nil && i.Ready.Status == cmmeta.ConditionTrue && (i.Ready.Generation == 0 || i.Ready.Generation >= i.Generation)
}

// authorityUnseen tells of an authority that may not be read, where the issuer is not ready.
func (t *teller) authorityUnseen() *Cause {
	if t.issuerIsReady() || !t.Authority.unseen() {
		return nil
	}
	return &Cause{ID: CauseForbidden, Where: t.issuerID(), Text: "the Secret of its authority could not be seen: " + unseenText(t.Authority.Look, t.Authority.Detail), Advice: "give yourself the right to " + t.Authority.Detail}
}

// issuerUnderWay tells of an issuer that nobody has looked at yet.
func (t *teller) issuerUnderWay() *Cause {
	if t.issuerIsReady() {
		return nil
	}
	return &Cause{ID: CauseUnderWay, Where: t.issuerID(), Text: "it was made or changed " + ago(t.At.Sub(t.Issuer.Object.Changed)) + ", and its controller has not said yet whether it can sign", Fix: t.describeIssuer()}
}
