package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/transport"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/token"
)

const accountUID = "6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10"

// here runs kubepki in this process.
func here(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &talk}); code != exitDone {
		t.Fatalf("kubepki %s ended with %d: %s", strings.Join(args, " "), code, talk.String())
	}
	return out.String(), talk.String()
}

// controlPlaneRoot is one with a key of a kind.
func controlPlaneRoot(t *testing.T, algorithm string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	here(t, "init", "--root", root, "--manifests", "--node-name", "cp1", "--apiserver-advertise-address", "10.0.0.11", "--key-algorithm", algorithm)
	return root
}

// verifierOf believes the public key of a control plane, at a time.
func verifierOf(t *testing.T, root string, now time.Time) *token.Verifier {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/pki/sa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.ParseKeys(data)
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier(token.Config{Keys: set, Issuers: []string{accountsIssuer}, Audiences: []string{accountsIssuer, "vault", "https://hook.test/"}, Legacy: true, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTokensSignedHereSayWhatFlagsSay compares all claims: the lab compares them
// with those that the real kube-apiserver makes.
func TestTokensSignedHereSayWhatFlagsSay(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	root := controlPlaneRoot(t, "ECDSA-P256")
	verifier := verifierOf(t, root, at.Add(time.Minute))
	plain := token.Claims{
		Issuer: accountsIssuer, Subject: "system:serviceaccount:ci:robot", Audiences: []string{accountsIssuer},
		IssuedAt: at, NotBefore: at, Expires: at.Add(time.Hour), Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: accountUID},
	}
	ref := &token.Ref{Name: "a", UID: "u-1"}
	bound := func(kind string) []string {
		return []string{"--bound-object-kind", kind, "--bound-object-name", "a", "--bound-object-uid", "u-1"}
	}
	hook := []string{"--audience", "https://hook.test/", "--attestation", "admissionReviewAPIGroups=apps"}
	seen := map[string]bool{}
	for name, row := range map[string]struct {
		flags []string
		want  func(*token.Claims)
	}{
		"no flag":                     {nil, func(*token.Claims) {}},
		"a life in days":              {[]string{"--duration", "2d"}, func(c *token.Claims) { c.Expires = at.Add(48 * time.Hour) }},
		"two audiences":               {[]string{"--audience", "vault", "--audience", "b,c"}, func(c *token.Claims) { c.Audiences = []string{"vault", "b,c"} }},
		"a pod":                       {bound("Pod"), func(c *token.Claims) { c.Pod = ref }},
		"a pod on a node":             {append(bound("Pod"), "--node-name", "w1", "--node-uid", "u-2"), func(c *token.Claims) { c.Pod, c.Node = ref, &token.Ref{Name: "w1", UID: "u-2"} }},
		"a pod on a node that is not": {append(bound("Pod"), "--node-name", "w1"), func(c *token.Claims) { c.Pod, c.Node = ref, &token.Ref{Name: "w1"} }},
		"a pod that is to be renewed": {append(bound("Pod"), "--warn-after", "3607s", "--duration", "365d"), func(c *token.Claims) {
			c.Pod, c.WarnAfter, c.Expires = ref, at.Add(3607*time.Second), at.Add(365*24*time.Hour)
		}},
		"a node":   {bound("Node"), func(c *token.Claims) { c.Node = ref }},
		"a secret": {bound("Secret"), func(c *token.Claims) { c.Secret = ref }},
		"a validating webhook": {append(bound("ValidatingWebhookConfiguration"), hook...), func(c *token.Claims) {
			c.ValidatingWebhookConfiguration, c.Audiences, c.Attestations, c.Expires = ref, []string{"https://hook.test/"}, map[string][]string{"admissionReviewAPIGroups": {"apps"}}, at.Add(10*time.Minute)
		}},
		"a mutating webhook": {append(bound("mutatingwebhookconfiguration"), hook...), func(c *token.Claims) {
			c.MutatingWebhookConfiguration, c.Audiences, c.Attestations, c.Expires = ref, []string{"https://hook.test/"}, map[string][]string{"admissionReviewAPIGroups": {"apps"}}, at.Add(10*time.Minute)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := here(t, append([]string{"sa", "token", "ci/robot", "--root", root, "--uid", accountUID, "--at", "2026-05-01T12:00:00Z"}, row.flags...)...)
			v, err := verifier.Verify(t.Context(), strings.TrimSpace(out))
			if err != nil {
				t.Fatal(err)
			}
			if id := v.Claims.ID; len(id) != 36 || seen[id] {
				t.Errorf("the id is %q, or was there before", id)
			}
			seen[v.Claims.ID] = true
			want, got := plain, v.Claims
			row.want(&want)
			want.ID = got.ID
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestTokensOfSecretsSignedHere(t *testing.T) {
	root := controlPlaneRoot(t, "RSA-2048")
	sign := func(flags ...string) string {
		out, _ := here(t, append([]string{"sa", "token", "ci/robot", "--root", root, "--uid", accountUID}, flags...)...)
		return out
	}
	text := strings.TrimSpace(sign("--legacy"))
	v, err := verifierOf(t, root, time.Now()).Verify(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	want := token.Claims{
		Issuer: token.LegacyIssuer, Subject: "system:serviceaccount:ci:robot", Legacy: true, Namespace: "ci",
		ServiceAccount: token.Ref{Name: "robot", UID: accountUID}, Secret: &token.Ref{Name: "robot-token"},
	}
	if d := cmp.Diff(want, v.Claims); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// RSA signs the same alike, so that the Secret of another run holds the token.
	if sign("--legacy") != text+"\n" || sign("--legacy", "--secret-name", "other") == text+"\n" {
		t.Error("the token of a Secret is another each time, or the same for each Secret")
	}
}

// TestClientsTakeUpAMount reads the folder as client-go does in a pod
// (rest.InClusterConfig).
func TestClientsTakeUpAMount(t *testing.T) {
	root, dir := controlPlaneRoot(t, "ECDSA-P256"), filepath.Join(t.TempDir(), "mount")
	args := []string{"sa", "token", "ci/robot", "--root", root, "--uid", accountUID, "--write-mount", dir}
	here(t, args...)
	synctest.Test(t, func(t *testing.T) {
		source := transport.NewCachedFileTokenSource(filepath.Join(dir, layout.MountToken))
		first, err := source.Token()
		if err != nil {
			t.Fatal(err)
		}
		here(t, args...)
		again, err := source.Token()
		if err != nil || again.AccessToken != first.AccessToken {
			t.Errorf("it reads the file each time, %v", err)
		}
		time.Sleep(time.Minute)
		next, err := source.Token()
		if err != nil || next.AccessToken == first.AccessToken {
			t.Errorf("the new token is not taken up, %v", err)
		}
	})
}

// TestSATokenKilled kills the program at random moments while it replaces a
// folder: what is there is always whole, and the next run tidies.
func TestSATokenKilled(t *testing.T) {
	root, dir := controlPlaneRoot(t, "ECDSA-P256"), filepath.Join(t.TempDir(), "mount")
	verifier := verifierOf(t, root, time.Now())
	args := []string{"sa", "token", "ci/robot", "--root", root, "--uid", accountUID, "--write-mount", dir}
	start := time.Now()
	runKubepki(t, args...)
	took := time.Since(start)
	folders := func() string { found, _ := filepath.Glob(filepath.Join(dir, "..2*")); return strings.Join(found, " ") }
	shown := func() string { to, _ := os.Readlink(filepath.Join(dir, "..data")); return to }
	killed, old := 0, 0
	for round := range 30 {
		before := shown()
		moment := func() { time.Sleep(rand.N(took)) }
		switch round % 3 {
		case 1: // while the new folder is written
			moment = untilChanged(folders, 20*took)
		case 2: // when it is shown
			moment = untilChanged(shown, 20*took)
		}
		if kill(t, moment, args...) {
			killed++
		}
		data, err := os.ReadFile(filepath.Join(dir, layout.MountToken))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := verifier.Verify(t.Context(), string(data)); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if shown() == before {
			old++
		}
	}
	runKubepki(t, args...)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	t.Logf("a run takes %s; %d of 30 runs were killed, %d before they showed their token", took, killed, old)
	if killed < 10 || old == 0 || old == 30 {
		t.Error("the runs were not killed at moments of each kind: the test proves little")
	}
}

// untilChanged waits until what is seen is another, or until the patience is over.
func untilChanged(see func() string, patience time.Duration) func() {
	before := see()
	return func() {
		for start := time.Now(); see() == before && time.Since(start) < patience; {
		}
	}
}
