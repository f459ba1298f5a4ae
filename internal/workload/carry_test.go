package workload

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

func carryCA(t *testing.T, name string, above *issue.Authority) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	template := issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	var c *x509.Certificate
	if above == nil {
		c, err = issue.SelfSign(template, key)
	} else {
		c, err = issue.Sign(template, key.Public(), *above)
	}
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func TestTheFactsOfASecretTellWhichAnchorVerifiesIt(t *testing.T) {
	one, same := carryCA(t, "one", nil), carryCA(t, "one", nil) // another key under the same name
	middle := carryCA(t, "middle", &one)
	leaf := carryCA(t, "leaf", &one)
	below := carryCA(t, "below", &middle)
	for name, c := range map[string]struct {
		chain, anchors []*x509.Certificate
		signer         *x509.Certificate
		signedBy       *x509.Certificate // looked for where the name does not tell
	}{
		"a leaf of the only anchor":             {[]*x509.Certificate{leaf.Certificate}, []*x509.Certificate{one.Certificate}, one.Certificate, nil},
		"a leaf of one of two of the same name": {[]*x509.Certificate{leaf.Certificate}, []*x509.Certificate{same.Certificate, one.Certificate}, one.Certificate, one.Certificate},
		"a leaf of another CA of the same name": {[]*x509.Certificate{leaf.Certificate}, []*x509.Certificate{same.Certificate}, one.Certificate, nil},
		"a chain with an intermediate":          {[]*x509.Certificate{below.Certificate, middle.Certificate}, []*x509.Certificate{one.Certificate}, one.Certificate, nil},
		"a chain with its root":                 {[]*x509.Certificate{below.Certificate, middle.Certificate, one.Certificate}, []*x509.Certificate{one.Certificate}, one.Certificate, nil},
		"a root is nobody's leaf":               {[]*x509.Certificate{one.Certificate}, []*x509.Certificate{one.Certificate}, nil, nil},
		"no ca.crt":                             {[]*x509.Certificate{leaf.Certificate}, nil, one.Certificate, nil},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{corev1.TLSCertKey: trust.EncodeCertificates(c.chain...)}
			if len(c.anchors) > 0 {
				data["ca.crt"] = trust.EncodeCertificates(c.anchors...)
			}
			f := FactsOf(&corev1.Secret{Data: data})
			var signer Signer
			if c.signer != nil {
				signer = SignerOf(c.signer)
			}
			var by AnchorID
			if c.signedBy != nil {
				by = AnchorIDOf(c.signedBy)
			}
			if f.Signer != signer || f.SignedBy != by {
				t.Errorf("signer %x, by %x", f.Signer, f.SignedBy)
			}
			if f.Bundle != BundleOf(c.anchors) {
				t.Error("the bundle is another")
			}
			for _, a := range []issue.Authority{one, same} {
				has := false
				for _, in := range c.anchors {
					has = has || in.Equal(a.Certificate)
				}
				if f.Bundle.Has(AnchorIDOf(a.Certificate)) != has {
					t.Errorf("the bundle has %x: %t", a.Certificate.SerialNumber, !has)
				}
			}
		})
	}
	if BundleOf([]*x509.Certificate{one.Certificate, same.Certificate}) == BundleOf([]*x509.Certificate{same.Certificate, one.Certificate}) {
		t.Error("the order of a bundle counts for nothing")
	}
}

func TestACertificateIsCarriedOver(t *testing.T) {
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := begun.Add(90 * time.Hour)
	due := begun.Add(60 * time.Hour) // by itself
	for name, c := range map[string]struct {
		carry   Carry
		renewal *cmapi.CertificateRenewal
		due     time.Time
		at      time.Time
		ofCA    bool
	}{
		"nothing is asked for":                                 {Carry{}, nil, due, due, false},
		"its CA goes before it is due":                         {Carry{Due: begun.Add(20 * time.Hour)}, nil, due, begun.Add(20 * time.Hour), true},
		"its CA goes after it is due":                          {Carry{Due: begun.Add(70 * time.Hour)}, nil, due, due, false},
		"it can wait until the new CA is accepted":             {Carry{Hold: begun.Add(61 * time.Hour)}, nil, due, begun.Add(61 * time.Hour), false},
		"it cannot wait that long":                             {Carry{Hold: begun.Add(100 * time.Hour)}, nil, due, end.Add(-holdMargin), false},
		"the wait is over before it is due":                    {Carry{Hold: begun.Add(10 * time.Hour)}, nil, due, due, false},
		"one that is never renewed is not, for its CA, either": {Carry{Due: begun.Add(20 * time.Hour), Hold: end}, nil, time.Time{}, time.Time{}, false},
		"windows are kept": {Carry{Due: begun.Add(20*time.Hour + time.Minute)}, &cmapi.CertificateRenewal{
			Policy: cmapi.CertificateRenewalPolicyRenewBefore, Windows: []cmapi.CertificateRenewalWindows{{Cron: "0 3 * * *", WindowDuration: &metav1.Duration{Duration: time.Hour}}},
		}, due, begun.Add(27 * time.Hour), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Certificate: &cmapi.Certificate{}, Secret: &SecretFacts{NotBefore: begun, NotAfter: end}, Carry: c.carry}
			s.Certificate.Spec.Renewal = c.renewal
			if at, ofCA := s.carried(c.due); !at.Equal(c.at) || ofCA != c.ofCA {
				t.Errorf("it is due after %s, for its CA: %t", at.Sub(begun), ofCA)
			}
		})
	}
}

func TestWhoWaitsForAnAnswerPublishesAllTheSame(t *testing.T) {
	one, two := carryCA(t, "one", nil), carryCA(t, "two", nil)
	leaf := carryCA(t, "leaf", &one)
	has, wants := BundleOf([]*x509.Certificate{one.Certificate}), BundleOf([]*x509.Certificate{one.Certificate, two.Certificate})
	for name, c := range map[string]struct {
		bundle Bundle
		owner  bool
		writes bool
	}{
		"its ca.crt lacks an anchor":         {wants, true, true},
		"it is as it shall be":               {has, true, false},
		"another Certificate has the Secret": {wants, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := &cmapi.Certificate{}
			SetCondition(&o.Status, cmapi.CertificateConditionIssuing, 0, cmmeta.ConditionTrue, "r", "m", time.Now())
			s := State{Certificate: o, Owner: c.owner, Carry: Carry{Bundle: c.bundle}, Requests: []*RequestFacts{{Name: "r", Revision: 1, State: RequestOpen}}}
			key, err := issue.EncodePrivateKey(leaf.Key)
			if err != nil {
				t.Fatal(err)
			}
			f := FactsOf(&corev1.Secret{Data: map[string][]byte{
				corev1.TLSCertKey: trust.EncodeCertificates(leaf.Certificate), corev1.TLSPrivateKeyKey: key, "ca.crt": trust.EncodeCertificates(one.Certificate),
			}})
			s.Secret = &f
			if v := Decide(s, time.Now()); v.Action != Await || v.Bundle != c.writes {
				t.Errorf("action %d, writes the bundle: %t", v.Action, v.Bundle)
			}
		})
	}
}

func TestWhatIsBesideTheChainOfAnIntermediate(t *testing.T) {
	root, next := carryCA(t, "root", nil), carryCA(t, "root", nil)
	middle := carryCA(t, "middle", &root)
	var many []*x509.Certificate
	for range maxBeside + 1 {
		many = append(many, carryCA(t, "any", nil).Certificate)
	}
	for name, c := range map[string]struct {
		own     issue.Authority
		anchors []*x509.Certificate
		beside  int
	}{
		"the root that comes":      {middle, []*x509.Certificate{root.Certificate, next.Certificate}, 1},
		"nothing but the root":     {middle, []*x509.Certificate{root.Certificate}, 0},
		"of a root nothing counts": {root, []*x509.Certificate{root.Certificate, next.Certificate}, 0},
		"all that somebody trusts": {middle, append(many, root.Certificate), 0},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := issue.EncodePrivateKey(c.own.Key)
			if err != nil {
				t.Fatal(err)
			}
			a, err := AuthorityOf(trust.EncodeCertificates(c.own.Certificate), key, trust.EncodeCertificates(c.anchors...))
			if err != nil || len(a.Beside) != c.beside {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
}
