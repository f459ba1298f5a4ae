//go:build linux

package lab_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Certificates of a cluster are renewed by the signers of the cluster itself: the real
// kube-controller-manager signs, the real kube-apiserver knows who comes with them.
func TestRenewedByTheSignersOfTheCluster(t *testing.T) {
	c := startCluster(t, initCluster(t, 1, "--key-algorithm=ECDSA-P256", "--kubelet-authority"), "separate", 1)
	admin := c.path("cp1", "etc/kubernetes/super-admin.conf")
	roots := []string{"--root=cp1=" + c.path("cp1", ""), "--root=w1=" + c.path("w1", "")}
	renew := func(as string, args ...string) (string, int) {
		out, err := try(t, "kubepki", append(append([]string{"renew", "--yes", "--signer-kubeconfig=" + as}, args...), roots...)...)
		return out.stdout + out.stderr, exitCode(err)
	}

	t.Run("components, kubelets and a person, approved by who may", func(t *testing.T) {
		out, code := renew(admin, "cp1/scheduler.conf", "cp1/controller-manager.conf", "cp1/admin.conf", "cp1/apiserver-kubelet-client", "w1/kubelet.conf", "w1/kubelet-server")
		if code != 0 || strings.Count(out, " renewed: valid until ") != 6 || strings.Count(out, "proved: the API server knows") != 5 {
			t.Fatalf("it ends with %d:\n%s", code, out)
		}
		verify(t, roots...)
		isIdentity(t, "the scheduler", c.conf(t, "scheduler"), identity{"system:kube-scheduler", []string{"system:authenticated"}})
		isIdentity(t, "the administrator", c.conf(t, "admin"), identity{"kubernetes-admin", []string{"kubeadm:cluster-admins", "system:authenticated"}})
		isIdentity(t, "the kubelet", restConfig(t, c.path("w1", "etc/kubernetes/kubelet.conf")), identity{"system:node:w1", []string{"system:authenticated", "system:nodes"}})
		for _, node := range []string{"cp1", "w1"} {
			if _, err := os.Stat(c.path(node, "etc/kubernetes/kubepki-pending")); err == nil {
				t.Errorf("%s: keys still wait", node)
			}
		}
	})
	t.Run("what no signer signs is refused by name, and left out of all", func(t *testing.T) {
		for id, reason := range map[string]string{
			"cp1/apiserver": "no built-in signer signs it", "cp1/etcd-peer": "it is of authority etcd-ca",
			"cp1/front-proxy-client": "it is of authority front-proxy-ca", "cp1/super-admin.conf": "refuses requests for group system:masters",
		} {
			if out, code := renew(admin, id); code != 1 || !strings.Contains(out, reason) {
				t.Errorf("%s: it ends with %d: %s", id, code, out)
			}
		}
		out, code := renew(admin, "--all", "--dry-run")
		if code != 0 || strings.Count(out, "left out: ") != 7 {
			t.Errorf("it ends with %d:\n%s", code, out)
		}
	})
	t.Run("nobody approves: the key waits, and the same request is gone on with", func(t *testing.T) {
		before := string(read(t, c.path("cp1", "etc/kubernetes/scheduler.conf")))
		out, code := renew(admin, "cp1/scheduler.conf", "--approve=never", "--signer-timeout=1s")
		if code != 3 || !strings.Contains(out, "outstanding: cp1/scheduler.conf: request kubepki-renew-") {
			t.Fatalf("it ends with %d:\n%s", code, out)
		}
		if string(read(t, c.path("cp1", "etc/kubernetes/scheduler.conf"))) != before {
			t.Error("the kubeconfig was changed")
		}
		pending := strings.Fields(run(t, "kubepki", "csr", "list", "--kubeconfig="+admin, "--state=pending", "-o", "name").stdout)
		if len(pending) != 1 {
			t.Fatalf("%q wait, want one", pending)
		}
		run(t, "kubepki", "csr", "approve", "--kubeconfig="+admin, strings.TrimPrefix(pending[0], "certificatesigningrequest.certificates.k8s.io/"))
		if out, code := renew(admin, "cp1/scheduler.conf", "--approve=never"); code != 0 || !strings.Contains(out, "going on with request") {
			t.Fatalf("it ends with %d:\n%s", code, out)
		}
		isIdentity(t, "the scheduler", c.conf(t, "scheduler"), identity{"system:kube-scheduler", []string{"system:authenticated"}})
	})
	t.Run("the agent has what is due signed there too", func(t *testing.T) {
		conf := c.path("cp1", "etc/kubernetes/controller-manager.conf")
		agesConf(t, conf, c.pki("ca"))
		before := string(read(t, conf))
		log := filepath.Join(t.TempDir(), "agent.log")
		f, err := os.Create(log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		agent := exec.Command(filepath.Join(programs, "kubepki"), "agent", "--renew=due", "--listen=", "--node-name=cp1", "--interval=1s", "--signer-kubeconfig="+admin, roots[0])
		agent.Stderr = f
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is renewed, and no key waits", func(context.Context) error {
			_, err := os.Stat(c.path("cp1", "etc/kubernetes/kubepki-pending"))
			if said := string(read(t, log)); !strings.Contains(said, "msg=renewed") || err == nil {
				return errors.New(said)
			}
			return nil
		})
		_ = agent.Process.Signal(os.Interrupt)
		_ = agent.Wait() // what it said counts
		said := string(read(t, log))
		if strings.Count(said, "asked for a certificate") != 1 || strings.Contains(said, "PRIVATE") || string(read(t, conf)) == before {
			t.Errorf("it says\n%s", said)
		}
		isIdentity(t, "the controller-manager", c.conf(t, "controller-manager"), identity{"system:kube-controller-manager", []string{"system:authenticated"}})
	})
	t.Run("denied: what is in place stays, and another run asks anew", func(t *testing.T) {
		if out, code := renew(admin, "cp1/scheduler.conf", "--approve=never", "--signer-timeout=1s"); code != 3 {
			t.Fatalf("it ends with %d:\n%s", code, out)
		}
		pending := strings.Fields(run(t, "kubepki", "csr", "list", "--kubeconfig="+admin, "--state=pending", "-o", "name").stdout)
		run(t, "kubepki", "csr", "deny", "--kubeconfig="+admin, "--reason=not today", strings.TrimPrefix(pending[0], "certificatesigningrequest.certificates.k8s.io/"))
		if out, code := renew(admin, "cp1/scheduler.conf"); code != 1 || !strings.Contains(out, "is denied: not today") {
			t.Errorf("it ends with %d:\n%s", code, out)
		}
		if out, code := renew(admin, "cp1/scheduler.conf"); code != 0 {
			t.Errorf("it ends with %d:\n%s", code, out)
		}
	})
	t.Run("a kubelet's, asked for by itself, as the controller manager approves it", func(t *testing.T) {
		c.allow(t, "system:nodes", rbacv1.PolicyRule{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/selfnodeclient"}, Verbs: []string{"create"}})
		out, code := renew(c.path("w1", "etc/kubernetes/kubelet.conf"), "w1/kubelet.conf")
		if code != 0 {
			t.Fatalf("it ends with %d:\n%s", code, out)
		}
		isIdentity(t, "the kubelet", restConfig(t, c.path("w1", "etc/kubernetes/kubelet.conf")), identity{"system:node:w1", []string{"system:authenticated", "system:nodes"}})
	})
}

// The requests that kubeadm leaves, signed without the usages that they do not ask for
// and then with them.
func TestRequestsOfKubeadmAreTakenIn(t *testing.T) {
	root := kubeadmNode(t, plainConfig)
	kubeadm(t, root, plainConfig, "certs", "generate-csr", "--kubeconfig-dir=/asked", "--cert-dir=/asked/pki")
	sign := func(name, authority string, args ...string) {
		t.Helper()
		pki := filepath.Join(root, "etc/kubernetes/pki", authority)
		request := filepath.Join(root, "asked", name+".csr")
		run(t, "/usr/bin/openssl", append([]string{"x509", "-req", "-in", request, "-CA", pki + ".crt", "-CAkey", pki + ".key", "-days=300",
			"-copy_extensions=copy", "-out", filepath.Join(root, "asked", strings.TrimSuffix(name, ".conf")+".crt")}, args...)...)
	}
	usages := write(t, filepath.Join(t.TempDir(), "usages"), "[client]\nextendedKeyUsage=clientAuth\n[server]\nextendedKeyUsage=serverAuth\n[both]\nextendedKeyUsage=serverAuth,clientAuth\n")
	of := map[string][2]string{
		"pki/apiserver": {"ca", "server"}, "pki/apiserver-kubelet-client": {"ca", "client"}, "pki/front-proxy-client": {"front-proxy-ca", "client"},
		"pki/etcd/server": {"etcd/ca", "both"}, "pki/etcd/peer": {"etcd/ca", "both"}, "admin.conf": {"ca", "client"}, "scheduler.conf": {"ca", "client"}, "kubelet.conf": {"ca", "client"},
	}
	for name, by := range of {
		sign(name, by[0])
	}
	out, err := try(t, "kubepki", "renew", "--yes", "--certificates="+filepath.Join(root, "asked"), "--root="+root)
	if exitCode(err) != 1 || strings.Count(out.stderr, "usage-missing: it has no extended key usage at all") != len(of) {
		t.Fatalf("without usages it says %s", out.stderr)
	}
	for name, by := range of {
		sign(name, by[0], "-extfile", usages, "-extensions", by[1])
	}
	if out := run(t, "kubepki", "renew", "--yes", "--certificates="+filepath.Join(root, "asked"), "--root="+root); strings.Count(out.stdout, " renewed: ") != len(of) {
		t.Fatalf("it says %s%s", out.stdout, out.stderr)
	}
	verify(t, "--root="+root)
}
