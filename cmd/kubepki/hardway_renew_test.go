package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// TestHardwayRenewed: what has expired on a node that units run is made anew by the
// very command that its finding gives, whatever its files are called.
func TestHardwayRenewed(t *testing.T) {
	const lib, kubelet = "/var/lib/kubernetes/", "/var/lib/kubelet/"
	at := testpki.Made.AddDate(0, 0, 3)
	clock = func() time.Time { return at }
	defer func() { clock = time.Now }()
	for name, row := range map[string]struct{ form, node, file string }{
		"the API server's pair":              {testpki.HardwayOpenssl, "server", lib + "kube-api-server.crt"},
		"a kubelet's serving pair":           {testpki.HardwayOpenssl, "node-0", kubelet + "kubelet.crt"},
		"the API server's pair of cfssl":     {testpki.HardwayCfssl, "controller-0", lib + "kubernetes.pem"},
		"etcd's pair of cfssl":               {testpki.HardwayCfssl, "controller-0", "/etc/etcd/kubernetes.pem"},
		"a kubelet's serving pair of cfssl":  {testpki.HardwayCfssl, "worker-0", kubelet + "worker-0.pem"},
		"the authority of openssl":           {testpki.HardwayOpenssl, "server", lib + "ca.crt"},
		"the API server's pair, key missing": {testpki.HardwayCfssl, "controller-0", lib + "kubernetes-key.pem"},
		"the scheduler's kubeconfig":         {testpki.HardwayCfssl, "controller-0", lib + "kube-scheduler.kubeconfig"},
		"the kube-proxy's kubeconfig":        {testpki.HardwayOpenssl, "node-0", "/var/lib/kube-proxy/kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.NewHardway(t, row.form)
			control, ca, key := "server", lib+"ca.crt", lib+"ca.key"
			if row.form == testpki.HardwayCfssl {
				control, ca, key = "controller-0", lib+"ca.pem", lib+"ca-key.pem"
			}
			switch {
			case strings.HasSuffix(row.file, "kubeconfig"):
				c.Remove(row.node, row.file)
			case strings.HasSuffix(row.file, "-key.pem"):
				c.Remove(row.node, row.file)
			default:
				if row.node != control {
					c.Write(row.node, "/tmp/ca.key", c.Read(control, key))
					c.Copy(control, ca, row.node, "/tmp/ca.crt")
					ca, key = "/tmp/ca.crt", "/tmp/ca.key"
				}
				c.ReissueAt(row.node, row.file, ca, key, func(x *x509.Certificate) { x.NotAfter = testpki.Made.Add(time.Hour) })
				c.Remove(row.node, "/tmp")
				if row.file == ca {
					c.Copy(control, ca, "node-0", kubelet+"ca.crt")
				}
			}
			code := exitDone
			v := verifyAny(t, []string{c.Dir, "--at", at.Format(time.RFC3339)}, &code)
			i := slices.IndexFunc(v.Findings, func(f check.Finding) bool {
				return f.Node == row.node && f.Path == row.file && f.Severity == check.Error
			})
			if i < 0 {
				t.Fatalf("no finding of %s: %v", row.file, v.Findings)
			}
			t.Logf("%s: %s # %s", v.Findings[i].ID, v.Findings[i].Fix, v.Findings[i].FixNote)
			var out, talk bytes.Buffer
			args := []string{"renew", row.node + ":" + row.file, "--yes", "--root", c.Dir}
			if strings.HasPrefix(row.file, "/var/lib/kube-proxy") {
				args = append(args, "--server", "https://server.kubernetes.local:6443") // as the refusal says
			}
			if code := run(context.Background(), args, streams{out: &out, err: &talk}); code != exitDone {
				t.Fatalf("kubepki %v: exit code %d: %s", args, code, talk.String())
			}
			if row.file == ca {
				c.Copy(control, ca, "node-0", kubelet+"ca.crt") // as the note says
			}
			after := verifyAny(t, []string{c.Dir, "--at", at.Format(time.RFC3339)}, &code)
			for _, f := range after.Findings {
				if f.Severity == check.Error {
					t.Errorf("left: %s %s %s:%s", f.ID, f.Cause, f.Node, f.Path)
				}
			}
		})
	}
}
