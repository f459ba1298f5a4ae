//go:build linux

package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
)

// observed is what the tests need of the observations of verify --live.
type observed struct {
	verification
	Observations []struct {
		Component, Kind, Outcome string
		Calls                    []struct{ Credential, Outcome, Alert, Reason string }
	}
}

// lookLive is kubepki verify --live from the test's own place in the network:
// that of an administrator's machine with copies of all nodes.
func lookLive(t *testing.T, dir string) observed {
	t.Helper()
	return parseObserved(t, "kubepki", "verify", "--live", "-o", "json", dir)
}

func parseObserved(t *testing.T, program string, args ...string) observed {
	t.Helper()
	out, err := try(t, program, args...)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
	var o observed
	if err := json.Unmarshal([]byte(out.stdout), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// lookLiveOn is kubepki verify --live on a node itself, which sees the node's
// root folder as / and the node's network as its own.
func lookLiveOn(t *testing.T, root string, of *lab.Process) observed {
	t.Helper()
	program := filepath.Join(root, "kubepki")
	if err := os.WriteFile(program, read(t, filepath.Join(programs, "kubepki")), 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(program)
	ns := fmt.Sprintf("--net=/proc/%d/ns/net", of.Pid())
	return parseObserved(t, "/usr/bin/nsenter", ns, "--", "/usr/sbin/chroot", root, "/kubepki", "verify", "--live", "-o", "json")
}

// says joins the findings, infos left out.
func (o observed) says() string {
	var all []string
	for _, f := range o.Findings {
		if f.Severity != "info" {
			all = append(all, fmt.Sprintf("%s %s: %s", f.ID, f.Path, f.Cause))
		}
	}
	return strings.Join(all, "\n")
}

// The real components, looked at from an administrator's machine: every half is
// proved live, but for those that no such machine can prove. Then one thing after
// the other goes wrong, and stays so.
func TestVerifyLiveOnTheRealComponents(t *testing.T) {
	const flag = "--key-algorithm=ECDSA-P256"
	dir, other := initCluster(t, 1, flag), initCluster(t, 1, flag)
	node := addNode(t, newNetwork(t), "cp1", filepath.Join(dir, "cp1"), "10.99.0.11/24")
	etcd, apiserver := start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver")
	ready(t, etcd, apiserver)
	ready(t, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
	c := &controlPlane{dir: dir, shape: "separate", nodes: []*lab.Node{node}}
	rootPublished(t, c)
	// etcd lets a peer in from its own address alone; no kubelet runs, nor an
	// extension API server.
	t.Run("a healthy cluster from elsewhere", func(t *testing.T) {
		liveAndHealthy(t, lookLive(t, dir), map[int]string{1: "client", 11: "both", 13: "client"})
	})
	t.Run("a healthy cluster from its node", func(t *testing.T) {
		o := lookLiveOn(t, filepath.Join(dir, "cp1"), etcd)
		liveAndHealthy(t, o, map[int]string{11: "both", 13: "client"})
		for _, s := range o.Observations {
			if s.Outcome != "answered" && s.Kind != "kubelet" {
				t.Errorf("%s (%s): %s", s.Component, s.Kind, s.Outcome)
			}
		}
	})
	t.Run("etcd shown alone", showsEtcd)
	t.Run("a new serving certificate, which the API server takes", func(t *testing.T) { servingTaken(t, c) })
	t.Run("a new key for tokens, which it does not take", func(t *testing.T) {
		copyFiles(t, other, dir, "sa.key", "sa.pub")
		found(t, lookLive(t, dir), "trust-stale /etc/kubernetes/pki/sa.pub")
	})
	t.Run("a new authority, which etcd does not take", func(t *testing.T) { authorityNotTaken(t, c, other) })
	t.Run("an API server that is dead", func(t *testing.T) {
		if err := apiserver.Kill(); err != nil {
			t.Fatal(err)
		}
		found(t, lookLive(t, dir), "unreachable /etc/kubernetes/manifests/kube-apiserver.yaml")
	})
}

func showsEtcd(t *testing.T) {
	out := run(t, "kubepki", "show", "10.99.0.11:2379").stdout
	for _, want := range []string{"TLS 1.3", "CN=etcd-ca", "certificate_required", "CN=cp1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// rootPublished waits for what the controller manager publishes.
func rootPublished(t *testing.T, c *controlPlane) {
	t.Helper()
	eventually(t, "kube-root-ca.crt", func(context.Context) error {
		_, err := try(t, "kubectl", "--kubeconfig="+c.path("cp1", "etc/kubernetes/super-admin.conf"), "get", "configmap", "-n", "kube-system", "kube-root-ca.crt")
		return err
	})
}

func liveAndHealthy(t *testing.T, o observed, notFromHere map[int]string) {
	t.Helper()
	if says := o.says(); says != "" {
		t.Error(says)
	}
	for _, l := range o.Links {
		for _, h := range l.Halves {
			side, excused := notFromHere[l.Number]
			if excused && (side == "both" || side == h.Side) {
				if h.State == "broken" {
					t.Errorf("link %d %s → %s, %s is broken", l.Number, l.Caller, l.Callee, h.Side)
				}
				continue
			}
			if h.State != "ok" || h.Proof != "live" {
				t.Errorf("link %d %s → %s, %s: %s (%s)", l.Number, l.Caller, l.Callee, h.Side, h.State, h.Proof)
			}
		}
	}
}

// servingTaken replaces the API server's pair: it takes the new one by itself.
func servingTaken(t *testing.T, c *controlPlane) {
	for _, file := range []string{"apiserver.crt", "apiserver.key"} {
		if err := os.Remove(c.pki(file)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "kubepki", "init", "--out="+c.dir, "--manifests", "--control-plane-endpoint=10.99.0.11:6443", "--key-algorithm=ECDSA-P256",
		"--control-plane=cp1=10.99.0.11", "--worker=w1=10.99.0.21")
	begin := time.Now()
	eventually(t, "the new certificate is presented", func(context.Context) error {
		if says := lookLive(t, c.dir).says(); says != "" {
			return errors.New(says)
		}
		return nil
	})
	t.Logf("taken within %s", time.Since(begin).Round(time.Second))
}

// authorityNotTaken gives etcd's nodes the authority of another cluster, of the
// same name, with all that it signed. etcd reads its pair anew for each
// handshake, and its authorities never.
func authorityNotTaken(t *testing.T, c *controlPlane, other string) {
	copyFiles(t, other, c.dir, "etcd/ca.crt", "etcd/ca.key", "etcd/server.crt", "etcd/server.key", "etcd/peer.crt", "etcd/peer.key",
		"etcd/healthcheck-client.crt", "etcd/healthcheck-client.key", "apiserver-etcd-client.crt", "apiserver-etcd-client.key")
	o := lookLive(t, c.dir)
	found(t, o, "trust-stale /etc/kubernetes/pki/etcd/ca.crt")
	for _, s := range o.Observations {
		for _, call := range s.Calls {
			if s.Kind == "etcd" && call.Alert != "unknown_ca" {
				t.Errorf("%s: %s: %s %s", s.Component, call.Credential, call.Outcome, call.Reason)
			}
		}
	}
}

// found wants certain findings among all.
func found(t *testing.T, o observed, want ...string) {
	t.Helper()
	says := o.says()
	for _, w := range want {
		if !strings.Contains(says, w) {
			t.Errorf("no %s in\n%s", w, says)
		}
	}
}

// copyFiles copies files of cp1's certificates folder between clusters.
func copyFiles(t *testing.T, from, to string, names ...string) {
	t.Helper()
	for _, name := range names {
		at := filepath.Join("cp1/etc/kubernetes/pki", name)
		if err := os.WriteFile(filepath.Join(to, at), read(t, filepath.Join(from, at)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
