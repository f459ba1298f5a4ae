//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// The DaemonSets of the agent are taken by the real API server as they are, and what
// they describe is run: the arguments, the environment, the mounts, the capabilities,
// the account. The kubelet and the image alone are not there.
func TestAgentAsItsDaemonSetsDescribeIt(t *testing.T) {
	c := &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}
	node := addNode(t, newNetwork(t), "cp1", c.path("cp1", ""), "10.99.0.11/24")
	// The serving certificate alone is near its end.
	ages(t, c.pki("apiserver.crt"), c.pki("ca"))
	before := read(t, c.pki("apiserver.crt"))
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	ready(t, etcd, start(t, node, "kube-apiserver"))
	c.admin = c.conf(t, "super-admin")
	manifests := filepath.Join("..", "deploy", "agent", "daemonset.yaml")
	if out, err := kubectl(t, c, "apply", "--validate=strict", "-f", manifests); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
	sets := daemonSets(t, manifests)
	c.admitted(t, sets)
	account := c.accountOf(t, "kubepki-agent", "kubepki-agent")

	load := c.load(t)
	renews := startPod(t, c, node, etcd, sets["kubepki-agent"], account)
	renews.says(t, `"msg":"renewed","id":"apiserver"`)
	presents(t, node, func(leaf *x509.Certificate) bool { return time.Until(leaf.NotAfter) > 5*time.Hour })
	renews.healthy(t, node)
	if failed := load(); failed != "" {
		t.Errorf("a call failed while the certificate was made anew: %s", failed)
	}
	if n := strings.Count(renews.log(), `"msg":"renewed"`); n != 1 || strings.Contains(renews.log(), "PRIVATE") {
		t.Errorf("%d were made anew:\n%s", n, renews.log())
	}
	backups, err := filepath.Glob(c.path("cp1", "etc/kubernetes/kubepki-backup/*/etc/kubernetes/pki/apiserver.crt"))
	if err != nil || len(backups) != 1 || !bytes.Equal(read(t, backups[0]), before) {
		t.Errorf("backups: %v, %v", backups, err)
	}
	lease, err := c.client(t).CoordinationV1().Leases("kubepki-agent").Get(t.Context(), "kubepki-agent", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "" {
		t.Errorf("the lease is not given back: %+v, %v", lease, err)
	}
	c.mayDoNoMore(t, account)
	renews.end(t)

	watches := startPod(t, c, node, etcd, sets["kubepki-agent-watch"], "")
	watches.says(t, `"msg":"verified","healthy":true`)
	watches.healthy(t, node)
	watches.end(t)
}

// ages signs a certificate again, so that it is at the last tenth of its life.
func ages(t *testing.T, crt, authority string) {
	t.Helper()
	parse := func(file string) *x509.Certificate {
		block, _ := pem.Decode(read(t, file))
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	old, ca := parse(crt), parse(authority+".crt")
	block, _ := pem.Decode(read(t, authority+".key"))
	key, err := privateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: old.Subject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses, KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-10 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, ca, old.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, crt, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func daemonSets(t *testing.T, file string) map[string]*appsv1.DaemonSet {
	t.Helper()
	all := map[string]*appsv1.DaemonSet{}
	for text := range bytes.SplitSeq(read(t, file), []byte("\n---\n")) {
		var d appsv1.DaemonSet
		if err := yaml.Unmarshal(text, &d); err == nil && d.Kind == "DaemonSet" {
			all[d.Name] = &d
		}
	}
	return all
}

// admitted has the pods of the DaemonSets judged by the API server's admission: that
// of pod security lets them into their namespace, and not into one without its label.
func (c *controlPlane) admitted(t *testing.T, sets map[string]*appsv1.DaemonSet) {
	t.Helper()
	client := c.client(t)
	plain := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "plain", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), plain, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, d := range sets {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.Spec.Template.Labels}, Spec: *d.Spec.Template.Spec.DeepCopy()}
		pod.Spec.ServiceAccountName = ""
		no := false
		pod.Spec.AutomountServiceAccountToken = &no
		create := func(namespace string) error {
			_, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{"All"}, FieldValidation: "Strict"})
			return err
		}
		// The account of the namespace is made by kube-controller-manager, which does not run.
		for _, namespace := range []string{d.Namespace, "plain"} {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: namespace}}
			if _, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
		if err := create(d.Namespace); err != nil {
			t.Errorf("a pod of %s: %v", name, err)
		}
		if err := create("plain"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("a pod of %s in another namespace: %v", name, err)
		}
	}
}

// accountOf is a token of a service account.
func (c *controlPlane) accountOf(t *testing.T, namespace, name string) string {
	t.Helper()
	token, err := c.client(t).CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// mayDoNoMore asks for what the account of the agent has no business with.
func (c *controlPlane) mayDoNoMore(t *testing.T, token string) {
	t.Helper()
	config := rest.AnonymousClientConfig(c.admin)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, secrets := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	_, leases := client.CoordinationV1().Leases("kube-system").List(t.Context(), metav1.ListOptions{})
	_, other := client.CoordinationV1().Leases("kubepki-agent").Get(t.Context(), "other", metav1.GetOptions{})
	for what, err := range map[string]error{"Secrets": secrets, "Leases of kube-system": leases, "another Lease": other} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("the account may read %s: %v", what, err)
		}
	}
}

// load calls the API server over new connections until it is ended, and then tells the
// first call that failed.
func (c *controlPlane) load(t *testing.T) (end func() string) {
	t.Helper()
	transport, err := rest.TLSConfigFor(c.admin)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var failed atomic.Pointer[string]
	var calls atomic.Int64
	for range 2 {
		wait.Go(func() {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: transport.Clone(), DisableKeepAlives: true}, Timeout: 20 * time.Second}
			for ctx.Err() == nil {
				err := fetch(ctx, client, c.admin.Host+"/api/v1/namespaces/kube-system")
				if err != nil && ctx.Err() == nil {
					text := err.Error()
					failed.CompareAndSwap(nil, &text)
				}
				calls.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return func() string {
		stop()
		wait.Wait()
		t.Logf("%d calls over new connections", calls.Load())
		if f := failed.Load(); f != nil {
			return *f
		}
		if calls.Load() < 20 {
			return fmt.Sprintf("there were only %d calls", calls.Load())
		}
		return ""
	}
}

func fetch(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}

// presents waits until the API server presents a certificate as it should be.
func presents(t *testing.T, node *lab.Node, fits func(*x509.Certificate) bool) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		conn, err := node.Dial(t.Context(), "tcp", "10.99.0.11:6443")
		if err == nil {
			secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // what it presents is looked at
			if err = secure.HandshakeContext(t.Context()); err == nil && fits(secure.ConnectionState().PeerCertificates[0]) {
				_ = secure.Close() // nothing was sent
				return
			}
			_ = conn.Close()
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("it still presents the old one: %v", err)
		}
	}
}

// pod is a container that was started as a kubelet would.
type pod struct {
	cmd  *exec.Cmd
	file string
}

// startPod runs the one container of a DaemonSet on a node: its arguments with the
// variables in them, its mounts of the node's folders, its capabilities, its read-only
// root, the node's network, the token of its account.
func startPod(t *testing.T, c *controlPlane, node *lab.Node, sandbox *lab.Process, d *appsv1.DaemonSet, token string) *pod {
	t.Helper()
	spec := d.Spec.Template.Spec
	container := spec.Containers[0]
	root := filepath.Join(t.TempDir(), d.Name)
	account := filepath.Join(root, "var/run/secrets/kubernetes.io/serviceaccount")
	if err := os.MkdirAll(account, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "kubepki"), string(read(t, filepath.Join(programs, "kubepki"))))
	if err := os.Chmod(filepath.Join(root, "kubepki"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if token != "" {
		write(t, filepath.Join(account, "token"), token)
		write(t, filepath.Join(account, "namespace"), d.Namespace)
		write(t, filepath.Join(account, "ca.crt"), string(read(t, c.pki("ca.crt"))))
	}
	bind(t, "/proc", filepath.Join(root, "proc"), false)
	for _, m := range container.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		from := filepath.Join(node.Root, spec.Volumes[i].HostPath.Path)
		if err := os.MkdirAll(from, 0o755); err != nil {
			t.Fatal(err)
		}
		bind(t, from, filepath.Join(root, m.MountPath), m.ReadOnly)
	}
	readOnly(t, root)

	p := &pod{cmd: exec.CommandContext(t.Context(), "/kubepki"), file: filepath.Join(t.TempDir(), "log")}
	p.cmd.Args = []string{"/kubepki"}
	for _, arg := range container.Args {
		p.cmd.Args = append(p.cmd.Args, strings.ReplaceAll(arg, "$(NODE_NAME)", node.Name))
	}
	p.cmd.Env = []string{"PATH=/", "KUBERNETES_SERVICE_HOST=10.99.0.11", "KUBERNETES_SERVICE_PORT=6443"}
	log, err := os.Create(p.file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	p.cmd.Dir = "/"
	if err := startConfined(p.cmd, sandbox.Pid(), container.SecurityContext.Capabilities.Add); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		if t.Failed() {
			t.Logf("%s:\n%s", d.Name, p.log())
		}
	})
	return p
}

// bind shows a folder below a container's root.
func bind(t *testing.T, from, to string, only bool) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) }) // with what is below it
	if only {
		readOnly(t, to)
	}
}

// readOnly makes a folder a mount that cannot be written to; mounts below it stay as
// they are.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Fatal(err)
	}
}

// capabilities are those of linux/capability.h that the manifests name.
var capabilities = map[corev1.Capability]uintptr{"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3}

// startConfined starts a command in the network of a process, with some capabilities
// and no other: those of a bounding set that only its thread has.
func startConfined(cmd *exec.Cmd, sandbox int, keep []corev1.Capability) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", sandbox))
			if err != nil {
				return err
			}
			defer network.Close()
			if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			kept := map[uintptr]bool{}
			for _, k := range keep {
				number, known := capabilities[k]
				if !known {
					return fmt.Errorf("capability %s", k)
				}
				kept[number] = true
			}
			for number := range uintptr(64) {
				if kept[number] {
					continue
				}
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
					return err
				}
			}
			return cmd.Start()
		}()
	}()
	return <-done
}

func (p *pod) log() string {
	data, err := os.ReadFile(p.file)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (p *pod) says(t *testing.T, what string) {
	t.Helper()
	for began := time.Now(); !strings.Contains(p.log(), what); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 60*time.Second {
			t.Fatalf("%s was not said:\n%s", what, p.log())
		}
	}
}

// healthy asks as the kubelet's liveness probe does.
func (p *pod) healthy(t *testing.T, node *lab.Node) {
	t.Helper()
	client, _ := node.Client()
	if err := fetch(t.Context(), client, "http://127.0.0.1:9793/healthz"); err != nil {
		t.Error(err)
	}
}

func (p *pod) end(t *testing.T) {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.log())
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it ended after %s", took)
	}
}
