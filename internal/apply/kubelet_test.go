package apply_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/util/certificate"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// asAfterRotation is a node whose kubelet has rotated its certificate once.
func asAfterRotation(t *testing.T, made time.Time) (dir, pki string) {
	t.Helper()
	dir, err := exampleNode(made)
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := filepath.Join(dir, "etc/kubernetes/kubelet.conf")
	text, readErr := os.ReadFile(conf)
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	var pair []byte
	for _, field := range []string{"client-certificate", "client-key"} {
		_, value, _ := strings.Cut(string(text), field+"-data: ")
		value, _, _ = strings.Cut(value, "\n")
		data, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		pair = append(pair, data...)
		text = bytes.Replace(text, []byte(field+"-data: "+value), []byte(field+": /var/lib/kubelet/pki/kubelet-client-current.pem"), 1)
	}
	pki = filepath.Join(dir, "var/lib/kubelet/pki")
	const dated = "kubelet-client-2026-06-01-00-00-00.pem"
	if err := errors.Join(os.WriteFile(conf, text, 0o600), os.MkdirAll(pki, 0o755), os.WriteFile(filepath.Join(pki, dated), pair, 0o600),
		os.Symlink(dated, filepath.Join(pki, "kubelet-client-current.pem"))); err != nil {
		t.Fatal(err)
	}
	return dir, pki
}

// TestTheKubeletGoesOnFromWhatWasRenewed asks the kubelet's own store of certificates:
// it finds the new pair, and its next rotation works.
func TestTheKubeletGoesOnFromWhatWasRenewed(t *testing.T) {
	made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	dir, pki := asAfterRotation(t, made)
	n, err := apply.ReadNode("", dir)
	if err != nil {
		t.Fatal(err)
	}
	at := made.AddDate(0, 11, 0)
	before := check.Run(n.Graph, check.Options{At: at})
	items, err := renew.Plan(n.Graph, before.Findings, []string{"kubelet.conf"}, renew.Options{At: at, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
	if err != nil {
		t.Fatal(err)
	}
	r, err := apply.Make(context.Background(), n, items, before, at)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) > 0 {
		t.Errorf("warnings: %q", r.Warnings)
	}
	if err := r.Write(n); err != nil {
		t.Fatal(err)
	}
	store, err := certificate.NewFileStoreWithLogger(logr.Discard(), "kubelet-client", pki, pki, "", "")
	if err != nil {
		t.Fatal(err)
	}
	now, err := store.Current()
	if err != nil {
		t.Fatal(err)
	}
	if !now.Leaf.Equal(r.Items[0].Made.Chain[0]) {
		t.Errorf("the kubelet finds %s of %s", now.Leaf.Subject, now.Leaf.NotBefore)
	}
	link, err := os.Readlink(filepath.Join(pki, "kubelet-client-current.pem"))
	if err != nil || link != "kubelet-client-"+at.Local().Format("2006-01-02-15-04-05")+".pem" {
		t.Errorf("the link leads to %s: %v", link, err)
	}
	old, err := os.ReadFile(filepath.Join(pki, "kubelet-client-2026-06-01-00-00-00.pem"))
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.Index(old, []byte("-----BEGIN EC PRIVATE KEY"))
	if _, err := store.Update(old[:end], old[end:]); err != nil {
		t.Errorf("the kubelet's next rotation fails: %v", err)
	}
}
