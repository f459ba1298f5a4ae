//go:build linux

package lab_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/token"
)

// testVerified has the API server sign, and kubepki verify: by the files of the
// control plane, by the keys that the API server publishes, and by a file.
func (k *saTokens) testVerified(t *testing.T) {
	const issuer = "https://kubernetes.default.svc.cluster.local"
	published := write(t, filepath.Join(k.dir, "jwks.json"), run(t, "kubectl", "--kubeconfig="+k.conf, "get", "--raw", token.JWKSPath).stdout)
	sources := map[string][]string{
		"the files of the control plane": {"--root=" + k.path("cp1", "")},
		"what it publishes":              {"--key=" + published, "--issuer=" + issuer},
		"sa.pub":                         {"--key=" + k.pki("sa.pub"), "--issuer=" + issuer},
	}
	for _, kind := range boundKinds {
		t.Run("bound to "+kind, func(t *testing.T) {
			audience := ""
			if isHook(kind) {
				audience = hookURL
			}
			made := k.there(t, k.bound(kind, false)...)
			k.isUser(t, made, audience)
			for name, flags := range sources {
				if audience != "" {
					flags = append(slices.Clone(flags), "--audience="+audience)
				}
				if d := cmp.Diff(made.User, k.verified(t, made.Token, flags...)); d != "" {
					t.Errorf("by %s (-kube-apiserver +kubepki):\n%s", name, d)
				}
			}
		})
	}
	t.Run("for an audience of its own", func(t *testing.T) {
		text := k.there(t, "--audience=vault").Token
		k.verified(t, text, append(sources["sa.pub"], "--audience=vault")...)
		k.refused(t, text, token.AudienceMismatch, sources["sa.pub"]...)
	})
	t.Run("of a Secret", func(t *testing.T) {
		text := strings.TrimSpace(run(t, "kubepki", "sa", "token", "ci/robot", "--kubeconfig="+k.conf, "--legacy", "--secret-name=verified").stdout)
		k.verified(t, text, "--key="+k.pki("sa.pub"))
		k.verified(t, text, "--root="+k.path("cp1", ""))
		k.refused(t, text, token.LegacyRefused, "--root="+k.path("cp1", ""), "--no-legacy")
	})
	t.Run("the keys are those that tokens name", func(t *testing.T) {
		u, err := token.Parse(k.there(t).Token)
		if err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{{"--root=" + k.path("cp1", "")}, {"--key=" + published}, {"--key=" + k.pki("sa.key")}} {
			if got := strings.TrimSpace(run(t, "kubepki", append([]string{"sa", "keys", "-o=name"}, flags...)...).stdout); got != u.KeyID {
				t.Errorf("%v: the key is %s, the token names %s", flags, got, u.KeyID)
			}
		}
		out := run(t, "kubepki", "sa", "keys", "--root="+k.path("cp1", "")).stdout
		for _, part := range []string{u.KeyID, "RS256", "kube-apiserver", "kube-controller-manager", "/etc/kubernetes/pki/sa.pub"} {
			if !strings.Contains(out, part) {
				t.Errorf("sa keys says nothing of %s:\n%s", part, out)
			}
		}
	})
}

// verify returns what sa verify says of a token.
func (k *saTokens) verify(t *testing.T, text string, flags ...string) (valid bool, user token.User, reasons []token.Reason) {
	t.Helper()
	file := write(t, filepath.Join(t.TempDir(), "token"), text+"\n")
	out, _ := try(t, "kubepki", append([]string{"sa", "verify", file, "-o=json"}, flags...)...) // 3 is an answer too
	var d struct {
		Valid   bool
		User    token.User
		Reasons []token.Reason
	}
	if err := json.Unmarshal([]byte(out.stdout), &d); err != nil {
		t.Fatalf("%v: %v\n%s", flags, err, out.stderr)
	}
	return d.Valid, d.User, d.Reasons
}

func (k *saTokens) verified(t *testing.T, text string, flags ...string) token.User {
	t.Helper()
	valid, user, reasons := k.verify(t, text, flags...)
	if !valid {
		t.Errorf("%v: refused: %v", flags, reasons)
	}
	return user
}

func (k *saTokens) refused(t *testing.T, text string, want token.ReasonID, flags ...string) {
	t.Helper()
	valid, _, reasons := k.verify(t, text, flags...)
	if valid || reasons[0].ID != want {
		t.Errorf("%v: valid is %v, %v; want %s", flags, valid, reasons, want)
	}
}
