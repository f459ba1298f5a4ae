package k8suser_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	requestx509 "k8s.io/apiserver/pkg/authentication/request/x509"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/mtls"
)

var (
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	organization = asn1.ObjectIdentifier{2, 5, 4, 10}
	unit         = asn1.ObjectIdentifier{2, 5, 4, 11}
	uid          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}
)

// Any subject gives the same user, or none here and there.
func TestUsersOfSubjectsAreThoseOfKubernetes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	users, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"jane", "system:masters", "dev", "system:node:n1"}), rapid.StringN(1, 20, 60))
		attribute := rapid.Custom(func(t *rapid.T) pkix.AttributeTypeAndValue {
			a := pkix.AttributeTypeAndValue{Type: rapid.SampledFrom([]asn1.ObjectIdentifier{commonName, commonName, organization, unit, uid}).Draw(t, "type"), Value: text.Draw(t, "value")}
			if a.Type.Equal(uid) && rapid.IntRange(0, 4).Draw(t, "not text") == 0 {
				a.Value = 7
			}
			return a
		})
		certificate := certify(t, key, rapid.SliceOfN(attribute, 0, 6).Draw(t, "subject"))
		theirs, ok, err := requestx509.CommonNameUserConversion([]*x509.Certificate{certificate})
		ours, refusal := mtls.Peer{Certificate: certificate}.User()
		if (ok && err == nil) != (refusal == nil) {
			t.Fatalf("Kubernetes: %t, %v; here: %v", ok, err, refusal)
		}
		if refusal != nil {
			refused++
			return
		}
		users++
		u := theirs.User
		if u.GetName() != ours.Name || u.GetUID() != ours.UID || !slices.Equal(u.GetGroups(), ours.Groups) || !maps.EqualFunc(u.GetExtra(), ours.Extra, slices.Equal) {
			t.Fatalf("Kubernetes: %+v; here: %+v", u, ours)
		}
	})
	if users == 0 || refused == 0 {
		t.Errorf("%d users and %d refusals were drawn", users, refused)
	}
}

func certify(t *rapid.T, key *ecdsa.PrivateKey, subject []pkix.AttributeTypeAndValue) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{ExtraNames: subject}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Skip("not to be written as a subject: ", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Skip("not to be read as a subject: ", err)
	}
	if len(c.Subject.Names) != len(subject) {
		t.Fatalf("the subject was lost: %v", c.Subject)
	}
	return c
}
