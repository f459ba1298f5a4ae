package recovery_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/trust"
)

func authority(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(2e9, 0)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExchangeKeepsAllElse(t *testing.T) {
	old, made, other := authority(t, "old"), authority(t, "new"), authority(t, "other")
	text := func(c *x509.Certificate) string { return string(trust.EncodeCertificates(c)) }
	all := []recovery.Exchange{{Old: old, New: made}}
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	for name, row := range map[string]struct{ before, after string }{
		"alone":                           {text(old), text(made)},
		"without an end of line":          {strings.TrimSuffix(text(old), "\n"), text(made)},
		"between others, with words":      {"# ours\n" + text(other) + "\nCluster:\n" + text(old) + "# the end\n" + text(other), "# ours\n" + text(other) + "\nCluster:\n" + text(made) + "# the end\n" + text(other)},
		"with ends of line as on Windows": {crlf(text(other) + text(old)), crlf(text(other)) + text(made)},
		"not there":                       {"# nothing\n" + text(other), "# nothing\n" + text(other)},
		"twice: one stays":                {text(old) + text(other) + text(old), text(made) + text(other)},
		"the new one is there already":    {text(made) + text(old), text(made)},
	} {
		got, err := recovery.InPEM([]byte(row.before), all)
		if err != nil || string(got) != row.after {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, row.after)
		}
		code := base64.StdEncoding.EncodeToString
		for form, of := range map[string]func(string) string{
			"YAML": func(s string) string {
				return "clusters: # two\n- cluster:\n    certificate-authority-data: " + code([]byte(s)) + "\n    server: https://a\n- cluster: {certificate-authority-data: '" + code([]byte(s)) + "', server: https://b}\n"
			},
			"JSON": func(s string) string {
				return `{"clusters":[{"cluster":{"certificate-authority-data":"` + code([]byte(s)) + `","server":"https://a"}}]}`
			},
		} {
			if got := recovery.InKubeconfig([]byte(of(row.before)), all); string(got) != of(row.after) {
				t.Errorf("%s, %s:\n%s\nwant\n%s", name, form, got, of(row.after))
			}
		}
	}
	for name, text := range map[string]string{"junk": "-----BEGIN CERTIFICATE-----\n!\n", "nothing": "", "a key of base64 that is none": "certificate-authority-data: AAA\n"} {
		if got := recovery.InKubeconfig([]byte(text), all); !bytes.Equal(got, []byte(text)) {
			t.Errorf("%s becomes %q", name, got)
		}
	}
	if _, err := recovery.InPEM([]byte("-----BEGIN CERTIFICATE-----\n!\n"), all); err == nil {
		t.Error("a text that does not parse is exchanged")
	}
}

func FuzzExchange(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("certificate-authority-data: AAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Nothing is exchanged: nothing may change.
		if got, err := recovery.InPEM(text, nil); err == nil && !bytes.Equal(got, text) {
			t.Errorf("%q becomes %q", text, got)
		}
		_ = recovery.InKubeconfig(text, nil)
	})
}
