package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
)

// TestKeysAreGuessedOnlyWhereAllIsRenewedWithNewOnesOfRSA: of the rest none is begun
// before the node is read.
func TestKeysAreGuessedOnlyWhereAllIsRenewedWithNewOnesOfRSA(t *testing.T) {
	rsa, ecdsa, torn := controlPlaneRoot(t, "RSA-2048"), controlPlaneRoot(t, "ECDSA-P256"), t.TempDir()
	pki := filepath.Join(torn, "etc/kubernetes/pki")
	if err := os.MkdirAll(pki, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pki, "apiserver.crt"), []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		root   string
		change func(o *renewOptions)
		want   issue.Algorithm
	}{
		{"all of a control plane with RSA", rsa, func(*renewOptions) {}, issue.RSA2048},
		{"some of it", rsa, func(o *renewOptions) { o.all = false }, ""},
		{"all of it, with the keys of now", rsa, func(o *renewOptions) { o.reuseKey = true }, ""},
		{"all of it, with keys of another kind", rsa, func(o *renewOptions) { o.plan.algorithm = "ECDSA-P384" }, ""},
		{"all of two nodes", rsa, func(o *renewOptions) { o.roots = append(o.roots, "b="+ecdsa) }, ""},
		{"all of one with ECDSA", ecdsa, func(*renewOptions) {}, ""},
		{"all of one with ECDSA, by keys of RSA", ecdsa, func(o *renewOptions) { o.plan.algorithm = "RSA-4096" }, issue.RSA4096},
		{"a certificate that does not parse", torn, func(*renewOptions) {}, ""},
		{"a folder with none", t.TempDir(), func(*renewOptions) {}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := &renewOptions{all: true}
			o.roots = []string{"a=" + row.root}
			row.change(o)
			var want []issue.Algorithm
			if row.want != "" {
				want = slices.Repeat([]issue.Algorithm{row.want}, leastOfAll)
			}
			if got := o.guessedKeys(); !slices.Equal(got, want) {
				t.Errorf("guessed are %q, want %q", got, want)
			}
		})
	}
}
