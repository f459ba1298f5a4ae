//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/lab"
)

// sharedFiles are what control planes share, below /etc/kubernetes/pki.
var sharedFiles = []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key", "etcd/ca.crt", "etcd/ca.key"}

// handedOver is what upload-certs leaves in a cluster.
type handedOver struct {
	Names   []string // in the Secret
	Type    corev1.SecretType
	Owner   metav1.OwnerReference // without what is random
	Token   map[string]string     // of the owner, without what is random
	Role    rbacv1.Role
	Binding rbacv1.RoleBinding
}

func (k *tokens) handedOver(t *testing.T) (h handedOver, owner string) {
	t.Helper()
	keep := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets := k.api.CoreV1().Secrets("kube-system")
	s, err := secrets.Get(t.Context(), "kubeadm-certs", metav1.GetOptions{})
	keep(err)
	for name := range s.Data {
		h.Names = append(h.Names, name)
	}
	slices.Sort(h.Names)
	if h.Type = s.Type; len(s.OwnerReferences) != 1 {
		t.Fatalf("it has %d owners", len(s.OwnerReferences))
	}
	h.Owner, owner = s.OwnerReferences[0], s.OwnerReferences[0].Name
	token, err := secrets.Get(t.Context(), owner, metav1.GetOptions{})
	keep(err)
	if token.UID != h.Owner.UID {
		t.Error("it has an owner that is not there")
	}
	h.Owner.Name, h.Owner.UID, h.Token = "", "", map[string]string{}
	for name, value := range token.Data {
		h.Token[name] = string(value)
		if name == "token-id" || name == "token-secret" || name == "expiration" {
			h.Token[name] = fmt.Sprint(len(value))
		}
	}
	role, err := k.api.RbacV1().Roles("kube-system").Get(t.Context(), "kubeadm:kubeadm-certs", metav1.GetOptions{})
	keep(err)
	h.Role = rbacv1.Role{ObjectMeta: bare(role.ObjectMeta), Rules: role.Rules}
	binding, err := k.api.RbacV1().RoleBindings("kube-system").Get(t.Context(), "kubeadm:kubeadm-certs", metav1.GetOptions{})
	keep(err)
	h.Binding = rbacv1.RoleBinding{ObjectMeta: bare(binding.ObjectMeta), RoleRef: binding.RoleRef, Subjects: binding.Subjects}
	return h, owner
}

// sameShared compares what a node took over with what the first one has, files and
// modes.
func (k *tokens) sameShared(t *testing.T, root string) {
	t.Helper()
	for _, name := range sharedFiles {
		file := filepath.Join(root, "etc/kubernetes/pki", name)
		if got, want := string(read(t, file)), string(read(t, k.pki(name))); got != want {
			t.Errorf("%s is another file", name)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if private := strings.HasSuffix(name, ".key"); private && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

// TestControlPlanesAreHandedOver: what kubepki hands over the real kubeadm takes, and
// the other way round; the node that took it becomes a control plane; and the Secret
// goes with its token.
func TestControlPlanesAreHandedOver(t *testing.T) {
	dir, own := initCluster(t, 1, "--key-algorithm=ECDSA-P256"), t.TempDir()
	network := newNetwork(t) // after the folders: they are removed when nothing runs in them
	c := startClusterIn(t, network, dir, "separate", 1)
	k := &tokens{controlPlane: c, api: c.client(t), conf: c.path("cp1", "etc/kubernetes/super-admin.conf"), dir: own}
	manifests, token := filepath.Join(k.dir, "bootstrap.yaml"), write(t, filepath.Join(k.dir, "token"), ownToken)
	run(t, "kubepki", "token", "create", "--root="+k.path("cp1", ""), "--manifests="+manifests, "--token-file="+token)
	if out, err := kubectl(t, c, "apply", "--server-side", "-f", manifests); err != nil {
		t.Fatalf("%v\n%s", err, out.stderr)
	}
	kubeadm(t, k.path("cp1", ""), plainConfig, "init", "phase", "upload-config", "all", "--kubeconfig=/etc/kubernetes/super-admin.conf")

	out := run(t, "kubepki", "node", "upload-certs", "--kubeconfig="+k.conf, "--root="+k.path("cp1", ""))
	key := strings.TrimSpace(out.stdout)
	byUs, _ := k.handedOver(t)
	if strings.Contains(out.stderr, key) {
		t.Error("the key is in the talk")
	}
	theirs := t.TempDir()
	run(t, "kubeadm", "join", "phase", "control-plane-prepare", "download-certs", apiEndpoint, "--control-plane", "--rootfs="+theirs,
		"--token="+ownToken, "--discovery-token-ca-cert-hash="+k.pin(t), "--certificate-key="+key)
	k.sameShared(t, theirs)

	said := kubeadm(t, k.path("cp1", ""), plainConfig, "init", "phase", "upload-certs", "--upload-certs", "--kubeconfig=/etc/kubernetes/super-admin.conf").stdout
	_, key, _ = strings.Cut(strings.TrimSpace(said), "certificate key:\n")
	byKubeadm, owner := k.handedOver(t)
	if d := cmp.Diff(byKubeadm, byUs); d != "" {
		t.Errorf("(-kubeadm +kubepki):\n%s", d)
	}
	cp2 := filepath.Join(k.dir, "cp2")
	keyFile := write(t, filepath.Join(k.dir, "key"), key)
	download := []string{"node", "download-certs", "--server=" + apiEndpoint, "--token-file=" + token, "--certificate-key-file=" + keyFile, "--root=" + cp2}
	stranger := bootstrap.PinOf(first(selfSigned(t, "kubernetes"))).String()
	if out, err := try(t, "kubepki", append(download, "--discovery-token-ca-cert-hash="+stranger)...); err == nil || !strings.Contains(out.stderr, "none of its authorities is pinned") {
		t.Errorf("another pin: %s", out.stderr)
	}
	if _, err := os.Stat(cp2); err == nil {
		t.Error("a node took over from a cluster that is not pinned")
	}
	run(t, "kubepki", append(download, "--discovery-token-ca-cert-hash="+k.pin(t))...)
	k.sameShared(t, cp2)

	k.becomes(t, network, cp2)

	// kube-controller-manager removes what has lost its owner.
	if err := k.api.CoreV1().Secrets("kube-system").Delete(t.Context(), owner, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kubeadm-certs goes with its token", func(ctx context.Context) error {
		_, err := k.api.CoreV1().Secrets("kube-system").Get(ctx, "kubeadm-certs", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
	if out, err := try(t, "kubepki", append(download, "--discovery-token-ca-cert-hash="+k.pin(t))...); err == nil || !strings.Contains(out.stderr, "is not there: it lives for two hours") {
		t.Errorf("when it is gone: %s", out.stderr)
	}
}

// becomes makes the node's own credentials, proves them with the other's, and has an
// administrator of the first one served by the second.
func (k *tokens) becomes(t *testing.T, network *lab.Network, root string) {
	t.Helper()
	run(t, "kubepki", "init", "--root="+root, "--node-name=cp2", "--apiserver-advertise-address=10.99.0.12", "--control-plane-endpoint=10.99.0.11:6443", "--key-algorithm=ECDSA-P256", "--manifests")
	out := run(t, "kubepki", "verify", "--root=cp1="+k.path("cp1", ""), "--root=cp2="+root, "--fail-on=warning").stdout
	if !strings.Contains(out, " 0 broken") {
		t.Errorf("verify says\n%s", out)
	}
	node := addNode(t, network, "cp2", root, "10.99.0.12/24")
	ready(t, start(t, node, "kube-apiserver", "--etcd-servers=https://10.99.0.11:2379"))
	config := strings.Replace(string(read(t, k.conf)), "https://10.99.0.11:6443", "https://10.99.0.12:6443", 1)
	client := clientset(t, write(t, filepath.Join(k.dir, "second.conf"), config))
	if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the second kube-apiserver: %v", err)
	}
}
