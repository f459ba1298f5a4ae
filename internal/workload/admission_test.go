package workload_test

import (
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubepki/kubepki/internal/workload"
)

func lasting(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// The rules are those of cert-manager's internal/apis/certmanager/validation, which cannot
// be imported: each row changes one thing in a good spec, and its twin beside it is good.
func TestSpecsThatAdmissionRefuses(t *testing.T) {
	type spec = *cmapi.CertificateSpec
	key := func(algorithm cmapi.PrivateKeyAlgorithm, size int) func(spec) {
		return func(s spec) { s.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: algorithm, Size: size} }
	}
	jks := func(ref string, literal *string) func(spec) {
		return func(s spec) {
			s.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, Password: literal}}
			s.Keystores.JKS.PasswordSecretRef.Name = ref
		}
	}
	pkcs12 := func(ref string, literal *string) func(spec) {
		return func(s spec) {
			s.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{Create: true, Password: literal}}
			s.Keystores.PKCS12.PasswordSecretRef.Name = ref
		}
	}
	window := func(cron, zone string, open *metav1.Duration) func(spec) {
		return func(s spec) {
			s.Renewal = &cmapi.CertificateRenewal{Policy: "RenewBefore", Windows: []cmapi.CertificateRenewalWindows{{Cron: cron, Timezone: zone, WindowDuration: open}}}
		}
	}
	bare := func(s spec) { s.DNSNames = nil }
	subject := func(text string) func(spec) { return func(s spec) { s.DNSNames, s.LiteralSubject = nil, text } }
	signed := func(algorithm cmapi.PrivateKeyAlgorithm, with cmapi.SignatureAlgorithm) func(spec) {
		return func(s spec) { key(algorithm, 0)(s); s.SignatureAlgorithm = with }
	}
	issuer := func(kind, group string) func(spec) {
		return func(s spec) { s.IssuerRef = cmmeta.IssuerReference{Name: "i", Kind: kind, Group: group} }
	}
	times := func(life, before *metav1.Duration, percentage *int32) func(spec) {
		return func(s spec) { s.Duration, s.RenewBefore, s.RenewBeforePercentage = life, before, percentage }
	}
	template := func(labels, annotations map[string]string) func(spec) {
		return func(s spec) {
			s.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: labels, Annotations: annotations}
		}
	}
	emails := func(list ...string) func(spec) { return func(s spec) { s.EmailAddresses = list } }
	others := func(oid, text string) func(spec) {
		return func(s spec) { s.OtherNames = []cmapi.OtherName{{OID: oid, UTF8Value: text}} }
	}
	constraints := func(isCA bool, c *cmapi.NameConstraints) func(spec) {
		return func(s spec) { s.IsCA, s.NameConstraints = isCA, c }
	}
	formats := func(types ...cmapi.CertificateOutputFormatType) func(spec) {
		return func(s spec) {
			for _, one := range types {
				s.AdditionalOutputFormats = append(s.AdditionalOutputFormats, cmapi.CertificateAdditionalOutputFormat{Type: one})
			}
		}
	}
	text := func(s string) *string { return &s }
	for _, row := range []struct {
		name   string
		change func(spec)
		want   string // "" for a good one
	}{
		{"nothing changed", func(spec) {}, ""},
		{"no secretName", func(s spec) { s.SecretName = "" }, "spec.secretName: is empty"},
		{"a secretName that is none", func(s spec) { s.SecretName = "Web_TLS" }, "spec.secretName:"},
		{"a secretName with dots", func(s spec) { s.SecretName = "web.tls" }, ""},
		{"no issuer", func(s spec) { s.IssuerRef.Name = "" }, "spec.issuerRef.name"},
		{"a kind that cert-manager.io has not", issuer("AWSPCAIssuer", ""), "set spec.issuerRef.group"},
		{"a kind of another group", issuer("AWSPCAIssuer", "awspca.cert-manager.io"), ""},
		{"a ClusterIssuer", issuer("ClusterIssuer", "cert-manager.io"), ""},

		{"no name at all", bare, "at least one of"},
		{"a common name alone", func(s spec) { bare(s); s.CommonName = "a" }, ""},
		{"a common name of 65 bytes", func(s spec) { s.CommonName = strings.Repeat("a", 65) }, "the common name is 65 bytes"},
		{"a common name of 64 bytes", func(s spec) { s.CommonName = strings.Repeat("a", 64) }, ""},
		{"an organization alone", func(s spec) { bare(s); s.Subject = &cmapi.X509Subject{Organizations: []string{"o"}} }, "at least one of"},
		{"a literal subject", subject("CN=a,O=b"), ""},
		{"a literal subject without a common name", subject("O=b"), "at least one of"},
		{"a literal subject that is none", subject("not a name"), "spec.literalSubject:"},
		{"a literal subject of an unknown attribute", subject("CN=a,UNKNOWN=blah"), `attribute "UNKNOWN" is not known`},
		{"a literal subject and a common name", func(s spec) { subject("CN=a")(s); s.CommonName = "a" }, "spec.literalSubject: not together"},
		{"a literal subject and a subject", func(s spec) { subject("CN=a")(s); s.Subject = &cmapi.X509Subject{Countries: []string{"DE"}} }, "spec.literalSubject: not together"},
		{"a literal common name of 65 bytes", subject("CN=" + strings.Repeat("a", 65)), "the common name is 65 bytes"},

		{"an address that is none", func(s spec) { s.IPAddresses = []string{"10.0.0.256"} }, "spec.ipAddresses[0]"},
		{"an address of IPv6", func(s spec) { s.IPAddresses = []string{"fd00::1"} }, ""},
		{"an e-mail address", emails("a@example.org", "b@example.org"), ""},
		{"an e-mail address with a name", emails("a@example.org", "B <b@example.org>"), "spec.emailAddresses[1]"},
		{"an e-mail address within brackets", emails("<b@example.org>"), "spec.emailAddresses[0]"},
		{"an e-mail address without a host", emails("alice"), "spec.emailAddresses[0]"},
		{"two e-mail addresses in one", emails("a@example.org,b@example.org"), "spec.emailAddresses[0]"},
		{"another name", others("1.3.6.1.4.1.311.20.2.3", "u@d"), ""},
		{"another name of no kind", others("", "u@d"), "spec.otherNames[0].oid"},
		{"another name of a bad kind", others("BAD_OID", "u@d"), "spec.otherNames[0].oid"},
		{"another name without a text", others("1.3.6.1.4.1.311.20.2.3", ""), "spec.otherNames[0].utf8Value"},

		{"RSA of 2048 bits", key("RSA", 2048), ""},
		{"RSA of 2047 bits", key("RSA", 2047), "spec.privateKey.size"},
		{"RSA of 8193 bits", key("RSA", 8193), "spec.privateKey.size"},
		{"RSA by default, of 1024 bits", key("", 1024), "spec.privateKey.size"},
		{"ECDSA of 521 bits", key("ECDSA", 521), ""},
		{"ECDSA of 512 bits", key("ECDSA", 512), "spec.privateKey.size"},
		{"Ed25519, which has no size", key("Ed25519", 17), ""},
		{"an algorithm that is none", key("DSA", 0), "spec.privateKey.algorithm"},
		{"a signature of the key's kind", signed("ECDSA", "ECDSAWithSHA384"), ""},
		{"a signature of another kind of key", signed("ECDSA", "SHA256WithRSA"), "spec.signatureAlgorithm"},
		{"a signature of another kind than the default's", signed("", "PureEd25519"), "spec.signatureAlgorithm"},
		{"a usage that is none", func(s spec) { s.Usages = []cmapi.KeyUsage{"server auth", "root"} }, "spec.usages[1]"},

		{"an hour", times(lasting(time.Hour), nil, nil), ""},
		{"less than an hour", times(lasting(time.Hour-time.Second), nil, nil), "spec.duration: 59m59s is shorter than 1h0m0s"},
		{"a life of nothing", times(lasting(0), nil, nil), "spec.duration"},
		{"five minutes before the end", times(nil, lasting(5*time.Minute), nil), ""},
		{"less than five minutes before the end", times(nil, lasting(299*time.Second), nil), "spec.renewBefore: 4m59s is shorter"},
		{"a second less than the life", times(lasting(time.Hour), lasting(time.Hour-time.Second), nil), ""},
		{"as long before the end as the life", times(lasting(time.Hour), lasting(time.Hour), nil), "spec.renewBefore: 1h0m0s is not shorter than the life"},
		{"as long before the end as the life by default", times(nil, lasting(90*24*time.Hour), nil), "spec.renewBefore"},
		{"renewBefore and a percentage", times(nil, lasting(time.Hour), ptr.To[int32](25)), "not together with spec.renewBeforePercentage"},
		{"a percentage", times(nil, nil, ptr.To[int32](25)), ""},
		{"no per cent", times(nil, nil, ptr.To[int32](0)), "spec.renewBeforePercentage: 0"},
		{"all per cent", times(nil, nil, ptr.To[int32](100)), "spec.renewBeforePercentage: 100"},
		{"a percentage that leaves five minutes", times(lasting(100*time.Minute), nil, ptr.To[int32](95)), ""},
		{"a percentage that leaves less", times(lasting(time.Hour), nil, ptr.To[int32](95)), "spec.renewBeforePercentage: 95 % leave 3m0s"},
		{"a history of one", func(s spec) { s.RevisionHistoryLimit = ptr.To[int32](1) }, ""},
		{"a history of none", func(s spec) { s.RevisionHistoryLimit = ptr.To[int32](0) }, "spec.revisionHistoryLimit: 0"},

		{"a template", template(map[string]string{"a": "b"}, map[string]string{"example.org/c": "d, e"}), ""},
		{"a label that is none", template(map[string]string{"a": "not a value!"}, nil), "spec.secretTemplate.labels"},
		{"a label's key that is none", template(map[string]string{"not a key!": "b"}, nil), "spec.secretTemplate.labels"},
		{"an annotation's key that is none", template(nil, map[string]string{"not a key!": "b"}), "spec.secretTemplate.annotations"},
		{"an annotation of cert-manager's", template(nil, map[string]string{"cert-manager.io/issuer-name": "b"}), "cert-manager.io/issuer-name is set by the controller"},
		{"the one that users may set", template(nil, map[string]string{"cert-manager.io/allow-direct-injection": "true"}), ""},

		{"constraints of an authority", constraints(true, &cmapi.NameConstraints{Permitted: &cmapi.NameConstraintItem{DNSDomains: []string{"a.b"}}}), ""},
		{"constraints of a leaf", constraints(false, &cmapi.NameConstraints{Permitted: &cmapi.NameConstraintItem{DNSDomains: []string{"a.b"}}}), "only an authority has them"},
		{"constraints of nothing", constraints(true, &cmapi.NameConstraints{Critical: true}), "neither permitted nor excluded"},
		{"two formats", formats("DER", "CombinedPEM"), ""},
		{"one format twice", formats("DER", "DER"), "spec.additionalOutputFormats[1]"},
		{"a JKS with a password", jks("", text("changeit")), ""},
		{"a JKS with a password elsewhere", jks("passwords", nil), ""},
		{"a JKS with both", jks("passwords", text("changeit")), "spec.keystores.jks: passwordSecretRef and password exclude"},
		{"a JKS with neither", jks("", nil), "spec.keystores.jks: needs"},
		{"a JKS with an empty password", jks("", text("")), "spec.keystores.jks.password: is empty"},
		{"a PKCS#12 with both", pkcs12("passwords", text("changeit")), "spec.keystores.pkcs12: passwordSecretRef and password exclude"},
		{"a PKCS#12 with neither", pkcs12("", nil), "spec.keystores.pkcs12: needs"},
		{"a PKCS#12 with an empty password", pkcs12("", text("")), "spec.keystores.pkcs12.password: is empty"},
		{"a PKCS#12 with a password", pkcs12("", text("changeit")), ""},

		{"a window", window("0 3 * * *", "Europe/Berlin", lasting(time.Hour)), ""},
		{"a window without a length", window("0 3 * * *", "", nil), "spec.renewal.windows[0]"},
		{"a window that no calendar has", window("61 3 * * *", "", lasting(time.Hour)), "spec.renewal.windows[0]"},
		{"a window of a zone that is none", window("0 3 * * *", "Mars/Base", lasting(time.Hour)), "spec.renewal.windows[0]"},
		{"windows of what is never renewed", func(s spec) { window("0 3 * * *", "", lasting(time.Hour))(s); s.Renewal.Policy = "Disabled" }, "spec.renewal.windows: not together"},
		{"never renewed", func(s spec) { s.Renewal = &cmapi.CertificateRenewal{Policy: "Disabled"} }, ""},
		{"a policy that is none", func(s spec) { s.Renewal = &cmapi.CertificateRenewal{Policy: "Sometimes"} }, "spec.renewal.policy"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.example.org"}, IssuerRef: cmmeta.IssuerReference{Name: "i"}}
			row.change(s)
			_, err := workload.WishOf(s)
			if err == nil {
				err = workload.Admit(s, workload.Upstream)
			}
			switch {
			case row.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("error %v, want one with %q", err, row.want)
			case err != nil && (!strings.HasPrefix(err.Error(), "spec") || strings.Contains(err.Error(), "\n")):
				t.Errorf("error %q is not one line with a field first", err)
			}
		})
	}
}

func TestShorterLivesWhereTheyAreAllowed(t *testing.T) {
	for shortest, before := range map[time.Duration]time.Duration{10 * time.Minute: 50 * time.Second, time.Hour: 5 * time.Minute, 24 * time.Hour: 5 * time.Minute, time.Second: time.Second / 12} {
		if l := workload.LimitsFor(shortest); l.Duration != shortest || l.RenewBefore != before {
			t.Errorf("for %s: %+v, want %s", shortest, l, before)
		}
	}
}

func TestIssuersThatAdmissionRefuses(t *testing.T) {
	type config = cmapi.IssuerConfig
	ca := &cmapi.CAIssuer{SecretName: "ca"}
	for _, row := range []struct {
		name string
		c    config
		want string
	}{
		{"a CA", config{CA: ca}, ""},
		{"one that signs itself", config{SelfSigned: &cmapi.SelfSignedIssuer{}}, ""},
		{"one that others serve", config{Vault: &cmapi.VaultIssuer{}}, ""},
		{"of no kind", config{}, "names no kind"},
		{"of two kinds", config{CA: ca, SelfSigned: &cmapi.SelfSignedIssuer{}}, "ca and selfSigned"},
		{"a CA without a Secret", config{CA: &cmapi.CAIssuer{}}, "spec.ca.secretName"},
		{"a CA with an empty OCSP server", config{CA: &cmapi.CAIssuer{SecretName: "ca", OCSPServers: []string{"http://a", ""}}}, "spec.ca.ocspServers[1]"},
		{"a CA with an empty URL of its own", config{CA: &cmapi.CAIssuer{SecretName: "ca", IssuingCertificateURLs: []string{""}}}, "spec.ca.issuingCertificateURLs[0]"},
	} {
		err := workload.AdmitIssuer(&cmapi.IssuerSpec{IssuerConfig: row.c})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: error %v, want one with %q", row.name, err, row.want)
		}
	}
}
