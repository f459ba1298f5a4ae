//go:build linux

package lab

import (
	"strings"
	"testing"
)

func TestLogsAreShownWithoutSecrets(t *testing.T) {
	const secret = "c2VjcmV0LW1hdGVyaWFs"
	for name, log := range map[string]string{
		"a private key":                 "key:\n-----BEGIN EC PRIVATE KEY-----\n" + secret + "\n-----END EC PRIVATE KEY-----\nnext",
		"a private key that is cut off": "key:\n-----BEGIN PRIVATE KEY-----\n" + secret,
		"a token":                       "Authorization: Bearer eyJhbGciOiJFUzI1NiJ9." + secret + ".c2ln next",
		"a kubeconfig":                  "client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRF" + secret + "==\nnext",
	} {
		shown := Redact(log)
		if strings.Contains(shown, secret) || !strings.Contains(shown, "[redacted]") {
			t.Errorf("%s is shown: %s", name, shown)
		}
		if strings.Contains(log, "next") && !strings.Contains(shown, "next") {
			t.Errorf("%s: what follows is gone: %s", name, shown)
		}
	}
	const plain = `I1123 20:09:46 serving "certificate" path="/etc/kubernetes/pki/apiserver.crt"`
	if got := Redact(plain); got != plain {
		t.Errorf("a plain line was changed: %s", got)
	}
}

func TestABootstrapTokenIsNotShown(t *testing.T) {
	if got := Redact("token abcdef.0123456789abcdef next"); got != "token [redacted] next" {
		t.Errorf("shown: %s", got)
	}
}

func TestAKeyIsNotShownLineByLine(t *testing.T) {
	var r Redactor
	var shown strings.Builder
	for line := range strings.Lines("before\n-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\nafter\n") {
		shown.WriteString(r.Line(line))
	}
	if got := shown.String(); got != "before\n[redacted]\nafter\n" {
		t.Errorf("shown: %q", got)
	}
}
