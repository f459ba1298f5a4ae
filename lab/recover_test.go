//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
)

const day = 24 * time.Hour

// aged is a cluster whose credentials are made old while it is off.
type aged struct {
	*controlPlane
	etcd, scheduler *lab.Process
	worker          *worker
}

// TestRecovered: a control plane and a real kubelet whose certificates are over fail as
// verify says, and run again on what recover makes.
func TestRecovered(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err) // the front proxy's test below needs none
	}
	// Before the network: it is removed after all is unmounted.
	a := &aged{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}}
	network := newNetwork(t)
	a.nodes = []*lab.Node{addNode(t, network, "cp1", a.path("cp1", ""), "10.99.0.11/24")}
	a.start(t)
	startApprover(t, a.controlPlane) // of the kubelet's serving certificate
	a.worker = startWorker(t, network, a.path("w1", ""), kubelet.Config{Name: "w1", Addresses: labNodes["w1"]})
	ready(t, a.worker.kubelet)
	nodeReady(t, a.client(t), "w1")
	finished(t, a.worker) // kubelet.conf leads to kubelet-client-current.pem
	testServing(t, a.controlPlane, a.worker)
	t.Run("only a kubelet's certificate is over", a.testKubelet)
	t.Run("a worker whose files are not at hand", a.testCarried)
	t.Run("all leaves are over", a.testLeaves)
	t.Run("the authorities are over too", a.testAuthorities)
	t.Run("the clock is wrong", a.testClock)
}

// start starts the control plane, in the order in which recover says.
func (a *aged) start(t *testing.T) {
	t.Helper()
	node := a.nodes[0]
	a.etcd = start(t, node, "etcd", "--unsafe-no-fsync")
	a.apiserver = start(t, node, "kube-apiserver")
	ready(t, a.etcd, a.apiserver)
	a.manager = start(t, node, "kube-controller-manager", "--leader-elect=false") // they need not wait for the leases of those before
	a.scheduler = start(t, node, "kube-scheduler", "--leader-elect=false")
	ready(t, a.manager, a.scheduler)
	a.admin = a.conf(t, "super-admin")
}

// stop switches all off.
func (a *aged) stop(t *testing.T) {
	t.Helper()
	for _, p := range []*lab.Process{a.worker.kubelet, a.scheduler, a.manager, a.apiserver, a.etcd} {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func (a *aged) age(t *testing.T, by testpki.Ageing) {
	t.Helper()
	if err := testpki.Age([]string{a.path("cp1", ""), a.path("w1", "")}, by); err != nil {
		t.Fatal(err)
	}
}

// finds wants the errors of verify to be those, each as "ID NODE:PATH".
func (a *aged) finds(t *testing.T, id string, want func(place string) bool) {
	t.Helper()
	out, err := try(t, "kubepki", "verify", a.dir, "-o", "json")
	if exitCode(err) != 3 {
		t.Fatalf("verify ends with %v", err)
	}
	var v struct {
		Findings []struct{ ID, Severity, Node, Path string }
	}
	if err := json.Unmarshal([]byte(out.stdout), &v); err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Findings {
		if f.Severity == "error" && (f.ID != id || !want(f.Node+":"+f.Path)) {
			t.Errorf("verify finds %s at %s:%s", f.ID, f.Node, f.Path)
		}
	}
}

// recovers runs recover, and wants all to be proved.
func (a *aged) recovers(t *testing.T, more ...string) output {
	t.Helper()
	begun := time.Now()
	out := run(t, "kubepki", append([]string{"recover", "--root", a.dir, "--yes"}, more...)...)
	t.Logf("after %v:\n%s%s", time.Since(begun).Round(time.Millisecond), out.stderr, out.stdout)
	if !strings.Contains(out.stdout, " 0 broken, 0 errors") {
		t.Error("not all is proved")
	}
	run(t, "kubepki", "verify", a.dir)
	if out := run(t, "kubepki", "recover", "--root", a.dir); !strings.Contains(out.stdout, "nothing to recover") {
		t.Errorf("a second run says %s", out.stdout)
	}
	return out
}

// kubeletComesBack starts the kubelet, and waits for its node to be ready after that.
func (a *aged) kubeletComesBack(t *testing.T) {
	t.Helper()
	begun := time.Now().Truncate(time.Second)
	a.worker.startKubelet(t)
	ready(t, a.worker.kubelet)
	eventually(t, "the node is ready again", func(ctx context.Context) error {
		node, err := a.client(t).CoreV1().Nodes().Get(ctx, "w1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(begun) {
				return nil
			}
		}
		return fmt.Errorf("%+v", node.Status.Conditions)
	})
	if err := says(t, a.controlPlane, "w1", "get", "nodes"); err != nil {
		t.Error(err)
	}
}

// kubeletFails starts the kubelet, which ends by itself and says why.
func (a *aged) kubeletFails(t *testing.T) {
	t.Helper()
	a.worker.startKubelet(t)
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	if err := a.worker.kubelet.Ended(ctx); err != nil && ctx.Err() != nil {
		t.Fatalf("the kubelet does not end: %v", err)
	}
	if log := a.worker.kubelet.Log(); !strings.Contains(log, "bootstrap-kubelet.conf") {
		t.Errorf("the kubelet says\n%s", log)
	}
}

func (a *aged) testKubelet(t *testing.T) {
	if err := a.worker.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	a.age(t, testpki.Ageing{Leaves: 400 * day, Only: []string{"/kubelet"}})
	a.finds(t, "cert-expired", func(place string) bool { return strings.Contains(place, "/kubelet") })
	a.kubeletFails(t)
	out := a.recovers(t)
	if strings.Contains(out.stdout, "apiserver recovered") || !strings.Contains(out.stdout, "w1/kubelet-server recovered") {
		t.Error("it is not exactly what is over that was made anew")
	}
	a.kubeletComesBack(t)
}

// testCarried: the kubelet starts on what is made for it on the control plane and carried
// to it, and renews its own pair by that.
func (a *aged) testCarried(t *testing.T) {
	if err := a.worker.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	a.age(t, testpki.Ageing{Leaves: 400 * day, Only: []string{"/w1/var/lib/kubelet"}})
	a.kubeletFails(t)
	carry := filepath.Join(t.TempDir(), "carry")
	out := run(t, "kubepki", "recover", "--root", "cp1="+a.path("cp1", ""), "--node", "w1", "--carry-to", carry, "--yes", "-o", "json")
	var made struct{ Carried []struct{ Node, Run string } }
	if err := json.Unmarshal([]byte(out.stdout), &made); err != nil || len(made.Carried) != 1 || made.Carried[0].Node != "w1" {
		t.Fatalf("%v: %s", err, out.stdout)
	}
	// The command as printed, but that the node's / is a folder and no systemd starts it.
	command, ok := strings.CutSuffix(made.Carried[0].Run, " && systemctl restart kubelet")
	if !ok {
		t.Errorf("it does not say how the kubelet is started: %s", made.Carried[0].Run)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, " /", " "+a.worker.root+"/"))
	sh.Dir = carry
	if said, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, said)
	}
	a.kubeletComesBack(t)
	own := func(t *testing.T) []byte {
		const folder = "var/lib/kubelet/pki"
		leads, err := os.Readlink(filepath.Join(a.worker.root, folder, "kubelet-client-current.pem")) // a path of the node
		if err != nil {
			t.Fatal(err)
		}
		return read(t, filepath.Join(a.worker.root, folder, filepath.Base(leads)))
	}
	eventually(t, "the kubelet has renewed its own pair", func(context.Context) error {
		pair, err := tls.X509KeyPair(own(t), own(t))
		if err == nil && time.Now().After(pair.Leaf.NotAfter) {
			err = errors.New("it is over")
		}
		return err
	})
	// The pair that it serves with it renews by itself, a moment later.
	eventually(t, "all is healthy", func(context.Context) error {
		out, err := try(t, "kubepki", "verify", a.dir)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out.stdout)
		}
		return nil
	})
}

func (a *aged) testLeaves(t *testing.T) {
	a.stop(t)
	a.age(t, testpki.Ageing{Leaves: 400 * day})
	a.finds(t, "cert-expired", func(string) bool { return true })
	a.controlPlaneFails(t, "has expired")
	a.kubeletFails(t)
	before := read(t, a.pki("ca.crt"))
	a.recovers(t)
	if !bytes.Equal(before, read(t, a.pki("ca.crt"))) {
		t.Error("the authority was made anew")
	}
	a.start(t)
	a.kubeletComesBack(t)
	if out := run(t, "kubepki", "recover", "--root", a.dir, "--live"); !strings.Contains(out.stdout, "nothing to recover") || !strings.Contains(out.stdout, " 0 broken, 0 errors") {
		t.Errorf("of what runs recover says\n%s%s", out.stderr, out.stdout)
	}
}

// controlPlaneFails starts etcd, which nobody believes any more, and kube-apiserver,
// which does not come up.
func (a *aged) controlPlaneFails(t *testing.T, why string) {
	t.Helper()
	etcd := start(t, a.nodes[0], "etcd", "--unsafe-no-fsync")
	apiserver := start(t, a.nodes[0], "kube-apiserver")
	eventually(t, "kube-apiserver says why it cannot", func(ctx context.Context) error {
		if !strings.Contains(apiserver.Log(), why) {
			return errors.New("not yet")
		}
		return nil
	})
	if err := apiserver.Probe(t.Context()); err == nil {
		t.Error("kube-apiserver is ready")
	}
	_, _ = apiserver.Kill(), etcd.Kill() // they are no loss
}

func (a *aged) testAuthorities(t *testing.T) {
	old := read(t, a.pki("ca.crt"))
	a.stop(t)
	a.age(t, testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day})
	over := read(t, a.pki("ca.crt"))
	a.finds(t, "cert-expired", func(string) bool { return true })
	a.controlPlaneFails(t, "has expired")
	a.recovers(t)
	a.start(t)
	a.kubeletComesBack(t)
	now := read(t, a.pki("ca.crt"))
	if oldKey, newKey := parseOne(t, old), parseOne(t, now); !bytes.Equal(oldKey.RawSubjectPublicKeyInfo, newKey.RawSubjectPublicKeyInfo) || !bytes.Equal(oldKey.RawSubject, newKey.RawSubject) || !bytes.Equal(oldKey.SubjectKeyId, newKey.SubjectKeyId) {
		t.Error("the authority has another name, key or key id")
	}
	// A copy that stays as it was verifies nothing, though name and key are the same;
	// beside the new one it does no harm.
	for _, trusts := range []struct {
		name  string
		text  []byte
		works bool
	}{{"the old certificate", over, false}, {"the new one", now, true}, {"both", slices.Concat(over, now), true}} {
		config := rest.CopyConfig(a.admin)
		config.CAFile, config.CAData = "", trusts.text
		if _, err := whoami(t, config); (err == nil) != trusts.works || err != nil && !strings.Contains(err.Error(), "has expired") {
			t.Errorf("a client that trusts %s: %v", trusts.name, err)
		}
	}
	// What the API holds: who was started anew has published it.
	for _, o := range []struct{ namespace, name, key string }{{"default", "kube-root-ca.crt", "ca.crt"}, {"kube-system", "extension-apiserver-authentication", "client-ca-file"}} {
		eventually(t, o.name+" holds the new certificate", func(ctx context.Context) error {
			m, err := a.client(t).CoreV1().ConfigMaps(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
			if err == nil && !strings.Contains(m.Data[o.key], strings.TrimSpace(string(now))) {
				err = errors.New("it does not")
			}
			return err
		})
	}
}

// testClock: the certificates begin in a year, or rather the clock is wrong.
func (a *aged) testClock(t *testing.T) {
	show := func() error {
		conn, err := tls.Dial("tcp", fmt.Sprintf(memberClients, 1), a.etcdTLS(t, load(t, a.pki("etcd/healthcheck-client"))))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	a.age(t, testpki.Ageing{Leaves: -500 * day, Authorities: -500 * day})
	if err := show(); err == nil || !strings.Contains(err.Error(), "not yet valid") {
		t.Errorf("what etcd serves is good: %v", err)
	}
	before := contents(t, a.path("cp1", "etc/kubernetes"))
	out, err := try(t, "kubepki", "recover", "--root", a.dir, "--yes")
	if exitCode(err) != 1 || !strings.Contains(out.stderr, "the clock is behind") {
		t.Errorf("recover ends with %v and says\n%s", err, out.stderr)
	}
	for file, text := range contents(t, a.path("cp1", "etc/kubernetes")) {
		if before[file] != text {
			t.Errorf("%s was changed", file)
		}
	}
	a.age(t, testpki.Ageing{Leaves: 500 * day, Authorities: 500 * day}) // somebody sets the clock right
	if err := show(); err != nil {
		t.Error(err)
	}
	if out := run(t, "kubepki", "recover", "--root", a.dir); !strings.Contains(out.stdout, "nothing to recover") {
		t.Errorf("recover says %s", out.stdout)
	}
}

// TestRecoveredFrontProxy: what is over of the front proxy alone is mended while
// kube-apiserver and an extension API server run.
func TestRecoveredFrontProxy(t *testing.T) {
	e := startExtended(t)
	pid := e.apiserver.Pid()
	for _, over := range []struct {
		name string
		by   testpki.Ageing
	}{
		{"the certificate", testpki.Ageing{Leaves: 400 * day, Only: []string{"front-proxy-client.crt"}}},
		{"its authority too", testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day, Only: []string{"front-proxy-"}}},
	} {
		if err := testpki.Age([]string{e.path("cp1", "")}, over.by); err != nil {
			t.Fatal(err)
		}
		if out, err := try(t, "kubepki", "verify", filepath.Join(e.dir, "cp1")); exitCode(err) != 3 || !strings.Contains(out.stdout, "front-proxy-client") {
			t.Errorf("verify ends with %v:\n%s", err, out.stdout)
		}
		eventually(t, "the extension API server lets the front proxy in no more: "+over.name, func(ctx context.Context) error {
			client := kubernetes.NewForConfigOrDie(rest.CopyConfig(e.admin))
			if err := client.CoreV1().RESTClient().Get().AbsPath(callersMe).Do(ctx).Error(); err == nil {
				return errors.New("it still does")
			}
			return nil
		})
		out := run(t, "kubepki", "recover", "--root", filepath.Join(e.dir, "cp1"), "--yes")
		if strings.Contains(out.stdout, "apiserver recovered") || !strings.Contains(out.stdout, "front-proxy-client recovered") {
			t.Errorf("recover says %s", out.stdout)
		}
		begun := time.Now()
		eventually(t, "the aggregated API works again: "+over.name, func(context.Context) error {
			_, err := e.caller(t, e.admin)
			return err
		})
		t.Logf("%s: works again after %v, without a restart", over.name, time.Since(begun).Round(time.Millisecond))
	}
	if err := e.apiserver.Probe(t.Context()); err != nil || e.apiserver.Pid() != pid {
		t.Errorf("kube-apiserver did not live through it: %v", err)
	}
}

// TestRecoveredQuorum: three members of an etcd whose certificates and authority are over
// know each other no more; with those of all members made anew in one run they do.
func TestRecoveredQuorum(t *testing.T) {
	if os.Getenv("KUBEPKI_LAB_LONG") == "" {
		t.Skip("the recovery of one member is tested above: set KUBEPKI_LAB_LONG, as make test-long does")
	}
	c := &controlPlane{dir: initCluster(t, 3, "--key-algorithm=ECDSA-P256")}
	network := newNetwork(t)
	var roots []string
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("cp%d", i)
		roots = append(roots, c.path(name, ""))
		c.nodes = append(c.nodes, addNode(t, network, name, c.path(name, ""), fmt.Sprintf("10.99.0.1%d/24", i)))
	}
	members := func() (all []*lab.Process) {
		for _, node := range c.nodes {
			all = append(all, start(t, node, "etcd", "--unsafe-no-fsync"))
		}
		return all
	}
	all := members()
	ready(t, all...)
	for _, p := range all {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := testpki.Age(append(roots, c.path("w1", "")), testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day}); err != nil {
		t.Fatal(err)
	}
	all = members()
	eventually(t, "the members say why they have no quorum", func(context.Context) error {
		for _, p := range all {
			if !strings.Contains(p.Log(), "has expired") {
				return errors.New("not yet")
			}
		}
		return nil
	})
	for _, p := range all {
		if err := p.Probe(t.Context()); err == nil {
			t.Error("a member is ready")
		}
		_ = p.Kill() // it is no loss
	}
	run(t, "kubepki", "recover", "--root", c.dir, "--yes")
	ready(t, members()...)
	testEtcdHealth(t, c)
}
