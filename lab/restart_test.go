//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/sshtest"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// podNode is a control plane whose components are static pods of a real kubelet, as
// kubeadm makes one.
type podNode struct {
	worker
	c *controlPlane
}

// components of a control plane, in the order in which they are restarted.
var staticPods = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// startPodNode starts a kubelet on cp1 with the manifests that kubepki init wrote;
// but that the images are the lab's programs.
func startPodNode(t *testing.T, dir string) *podNode {
	t.Helper()
	n := &podNode{worker{name: "cp1", root: filepath.Join(dir, "cp1")}, &controlPlane{dir: dir, shape: "separate"}}
	n.c.admin = restConfig(t, n.c.path("cp1", "etc/kubernetes/super-admin.conf"))
	config := lab.NodeConfig{Name: "cp1", Root: n.root, Programs: programs, Logs: t.TempDir(), Machine: true}
	for _, a := range labNodes["cp1"] {
		config.Addresses = append(config.Addresses, netip.PrefixFrom(a, 24))
	}
	image := regexp.MustCompile(`(?m)^(\s*image: ).*$`)
	for _, component := range staticPods {
		file := n.manifestOf(component)
		text := string(image.ReplaceAll(read(t, file), []byte("${1}"+cri.Registry+component+":v1.37.2")))
		// An API server with watches takes the whole of it to end.
		write(t, file, strings.Replace(text, "\nspec:\n", "\nspec:\n  terminationGracePeriodSeconds: 4\n", 1))
	}
	node, err := newNetwork(t).Node(config)
	if err != nil {
		t.Fatal(err)
	}
	n.node = node
	if n.runtime, err = cri.Start(node, labNodes["cp1"]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	if n.manifest, err = kubelet.Prepare(n.root, kubelet.Config{Name: "cp1", Addresses: labNodes["cp1"], ControlPlane: true}); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(n.root, kubelet.ConfigFile)
	text := strings.Replace(string(read(t, settings)), "serverTLSBootstrap: true", "serverTLSBootstrap: false", 1)
	write(t, settings, text+"staticPodPath: "+lab.ManifestsDir+"\n")
	write(t, filepath.Join(n.root, "kubepki"), string(read(t, filepath.Join(programs, "kubepki"))))
	if err := os.Chmod(filepath.Join(n.root, "kubepki"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.startKubelet(t)
	return n
}

func (n *podNode) manifestOf(component string) string {
	return filepath.Join(n.root, lab.ManifestsDir, component+".yaml")
}

// command is kubepki on the node itself, with the node's network and root folder.
func (n *podNode) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	enter := []string{fmt.Sprintf("--net=/proc/%d/ns/net", n.kubelet.Pid()), "--", "/usr/sbin/chroot", n.root, "/kubepki"}
	return exec.CommandContext(t.Context(), "/usr/bin/nsenter", append(enter, args...)...)
}

// kubepki runs it and wants an exit code.
func (n *podNode) kubepki(t *testing.T, code int, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := n.command(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("%s: kubepki %s\n%s%s", time.Since(began).Round(100*time.Millisecond), strings.Join(args, " "), &stdout, &stderr)
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("kubepki %s: exit code %d, want %d", strings.Join(args, " "), got, code)
	}
	return output{stdout.String(), stderr.String()}
}

// pids are the processes of the node's containers, by their component.
func (n *podNode) pids() map[string]int {
	all := map[string]int{}
	for _, r := range n.runtime.Running() {
		all[r.Container] = r.PID
	}
	return all
}

// restarted wants the processes of some components to be others, and all else to be
// as it was.
func (n *podNode) restarted(t *testing.T, before map[string]int, names ...string) {
	t.Helper()
	now := n.pids()
	for _, component := range staticPods {
		is := now[component] != before[component]
		want := strings.Contains(" "+strings.Join(names, " ")+" ", " "+component+" ")
		if is != want || now[component] == 0 {
			t.Errorf("%s was process %d and is %d", component, before[component], now[component])
		}
	}
}

// another wants the process of a component to be another one. Those that call it may
// have ended meanwhile, for want of it.
func (n *podNode) another(t *testing.T, before map[string]int, component string) {
	t.Helper()
	if now := n.pids()[component]; now == 0 || now == before[component] {
		t.Errorf("%s was process %d and is %d", component, before[component], now)
	}
}

// serves waits until the API server is ready and knows the mirror pods as running.
func (n *podNode) serves(t *testing.T) {
	t.Helper()
	client := n.c.client(t)
	eventually(t, "the control plane runs as static pods", func(ctx context.Context) error {
		pods, err := client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "tier=control-plane"})
		if err != nil {
			return err
		}
		running := 0
		for i := range pods.Items {
			p := &pods.Items[i]
			if _, mirror := p.Annotations["kubernetes.io/config.mirror"]; mirror && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil {
				running++
			}
		}
		if running != len(staticPods) {
			return fmt.Errorf("%d of %d mirror pods run", running, len(staticPods))
		}
		return nil
	})
}

// A control plane of static pods under a real kubelet: everything that kubepki
// restarts is a real component, which the kubelet alone starts again.
func TestRestartOfStaticPods(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err)
	}
	const flag = "--key-algorithm=ECDSA-P256"
	dir, other := initCluster(t, 1, flag), initCluster(t, 1, flag)
	n := startPodNode(t, dir)
	n.serves(t)
	t.Run("a plan says how", func(t *testing.T) {
		before := n.pids()
		out := n.kubepki(t, 3, "node", "restart", "--all", "--dry-run")
		for _, want := range append([]string{"/proc/"}, staticPods...) {
			if !strings.Contains(out.stderr, want) {
				t.Errorf("no %s in the plan", want)
			}
		}
		n.restarted(t, before)
	})
	t.Run("over SSH", func(t *testing.T) { restartOverSSH(t, n) })
	t.Run("by the runtime after a renewal", func(t *testing.T) {
		before := n.pids()
		out := n.kubepki(t, 1, "renew", "controller-manager.conf", "kubelet.conf", "apiserver", "--restart", "--restart-by=cri", "--yes")
		if !strings.Contains(out.stderr, "kubelet was not restarted: it goes on with the old ones") { // nobody starts it again here
			t.Error("it does not say what is left")
		}
		n.restarted(t, before, "kube-controller-manager") // the API server takes its pair up by itself
	})
	t.Run("by the agent, with the rights of its unit", func(t *testing.T) { restartByAgent(t, n) })
	t.Run("by the manifest", func(t *testing.T) {
		before := n.pids()
		n.kubepki(t, 0, "renew", "etcd-ca", "--dry-run", "--restart")
		n.kubepki(t, 0, "node", "restart", "etcd", "--by=manifest", "--yes")
		n.another(t, before, "etcd")
		n.serves(t)
	})
	t.Run("killed while the manifest is away", func(t *testing.T) { restartKilled(t, n) })
	t.Run("what is stale alone", func(t *testing.T) {
		copyFiles(t, other, dir, "sa.key", "sa.pub")
		before := n.pids()
		out := n.kubepki(t, 0, "node", "restart", "--stale", "--yes")
		n.another(t, before, "kube-apiserver")
		if !strings.Contains(out.stderr, "trust-stale") {
			t.Error("it does not say why")
		}
		if out := n.kubepki(t, 0, "node", "restart", "--stale", "--yes"); !strings.Contains(out.stdout, "nothing is to be restarted") {
			t.Error("something is stale still")
		}
	})
	t.Run("a recovery brings it back", func(t *testing.T) { restartRecovered(t, n) })
	t.Run("the first that does not come back is the last", func(t *testing.T) { restartStops(t, n) })
	t.Run("a kubelet that nobody starts again is not ended", func(t *testing.T) {
		n.kubepki(t, 1, "node", "restart", "kubelet", "--yes")
		select {
		case <-n.kubelet.Done():
			t.Error("the kubelet was ended")
		default:
		}
	})
}

// restartOverSSH renews and restarts what runs on the node from another machine, by an SSH
// server whose commands run on the node.
func restartOverSSH(t *testing.T, n *podNode) {
	before, home := n.pids(), t.TempDir()
	key := sshtest.NewKey(t, home, "")
	m := sshtest.Start(t, home, key)
	script := strings.Join(n.command(t).Args, " ")
	if err := os.Mkdir(filepath.Join(m.Home, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Home, "bin", "kubepki-there"), []byte("#!/bin/sh\nexec "+script+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	known := write(t, filepath.Join(home, "known"), m.KnownHosts())
	out := run(t, "kubepki", "renew", "scheduler.conf", "apiserver", "--restart", "--yes", "--ssh", "cp1=root@"+m.Addr, "--ssh-known-hosts", known, "--ssh-identity", key.File, "--ssh-config", "none", "--ssh-command", "kubepki-there")
	t.Log(out.stderr)
	if !strings.Contains(out.stderr, "cp1/kube-scheduler restarted and proved") || !strings.Contains(out.stdout, "cp1/apiserver renewed") {
		t.Errorf("it says %s%s", out.stdout, out.stderr)
	}
	n.restarted(t, before, "kube-scheduler")
	run(t, "kubepki", "verify", n.root)
}

// restartRecovered makes leaves old while the control plane runs on them: kube-apiserver
// takes them up, and its clients refuse it.
func restartRecovered(t *testing.T, n *podNode) {
	before := n.pids()
	if err := testpki.Age([]string{n.root}, testpki.Ageing{Leaves: 400 * day, Only: []string{"/etc/kubernetes/pki/", "scheduler.conf", "kubelet.conf"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kube-apiserver serves what is over", func(context.Context) error {
		if _, err := whoami(t, rest.CopyConfig(n.c.admin)); err == nil || !strings.Contains(err.Error(), "expired") {
			return fmt.Errorf("a client says %w", err)
		}
		return nil
	})
	out := n.kubepki(t, 3, "recover", "--dry-run", "--restart")
	for _, want := range []string{"kube-scheduler .* reads /etc/kubernetes/scheduler.conf", "kube-apiserver .* is not ended, only waited for"} {
		if !regexp.MustCompile(want).MatchString(out.stderr) {
			t.Errorf("the plan does not say %q", want)
		}
	}
	// It is killed when the files are written and nothing is restarted yet: the second run
	// has nothing to recover, and goes on.
	n.killedAt(t, "waiting for etcd", "recover", "--restart", "--yes")
	n.restarted(t, before)
	out = n.kubepki(t, 1, "recover", "--restart", "--yes")
	for _, want := range []string{"etcd runs, and was proved after", "kube-apiserver runs, and was proved after", "kube-scheduler restarted and proved"} {
		if !strings.Contains(out.stderr, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	// The kubelet is of no unit here: that it goes on is said, and nothing else is left.
	if !strings.Contains(out.stderr, "the files are written, and kubelet was not restarted") || !strings.Contains(out.stdout, " 0 broken, 0 errors") {
		t.Error("it does not say what is left")
	}
	n.restarted(t, before, "kube-scheduler")
	n.serves(t)
	// What was restarted since is not restarted again.
	if out := n.kubepki(t, 1, "recover", "--restart"); !strings.Contains(out.stderr, "the files are written, and kubelet was not restarted") || !strings.Contains(out.stdout, "nothing to recover") {
		t.Error("it does not say that nothing else is left")
	}
	n.restarted(t, before, "kube-scheduler")
}

// killedAt runs kubepki on the node and kills it when it says something.
func (n *podNode) killedAt(t *testing.T, word string, args ...string) {
	t.Helper()
	cmd := n.command(t, args...)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines, heard := bufio.NewScanner(said), false
	for !heard && lines.Scan() {
		heard = strings.Contains(lines.Text(), word)
	}
	if err := cmd.Process.Kill(); err != nil || !heard {
		t.Errorf("it never said %q, or had ended: %v", word, err)
	}
	_ = cmd.Wait() // it was killed
}

// restartKilled kills kubepki at the worst moment.
func restartKilled(t *testing.T, n *podNode) {
	if os.Getenv("KUBEPKI_LAB_LONG") == "" {
		t.Skip("internal/restart has a manifest that was left aside, without a kubelet: set KUBEPKI_LAB_LONG, as make test-long does")
	}
	manifest, before := n.manifestOf("etcd"), n.pids()
	text := read(t, manifest)
	cmd := n.command(t, "node", "restart", "etcd", "--by=manifest", "--yes")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the manifest is away", func(context.Context) error {
		if _, err := os.Stat(manifest); !errors.Is(err, fs.ErrNotExist) {
			return errors.New("it is there")
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the kubelet has ended the pod", func(context.Context) error {
		if pid := n.pids()["etcd"]; pid != 0 {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
	out := n.kubepki(t, 0, "node", "restart", "etcd", "--by=manifest", "--yes")
	if !strings.Contains(out.stderr, "is back in its place") || !bytes.Equal(read(t, manifest), text) {
		t.Error("the manifest is not what it was")
	}
	n.another(t, before, "etcd")
	if left := filesBelow(t, filepath.Join(n.root, "etc/kubernetes")); strings.Contains(strings.Join(left, " "), "kubepki-restart") {
		t.Errorf("something is left: %v", left)
	}
}

// restartStops breaks the second of three.
func restartStops(t *testing.T, n *podNode) {
	conf := filepath.Join(n.root, "etc/kubernetes/controller-manager.conf")
	good, before := read(t, conf), n.pids()
	write(t, conf, "junk")
	out := n.kubepki(t, 1, "node", "restart", "kube-scheduler", "kube-controller-manager", "--timeout=10s", "--yes", "-o", "json")
	var said struct {
		Restarted, Left []struct{ ID string }
		Failed          struct{ ID, Error, See string }
	}
	if err := json.Unmarshal([]byte(out.stdout), &said); err != nil {
		t.Error(err)
	}
	if said.Failed.ID != "kube-controller-manager" || !strings.Contains(said.Failed.See, "crictl") || len(said.Left) != 1 || said.Left[0].ID != "kube-scheduler" || len(said.Restarted) > 0 {
		t.Errorf("it says %+v", said)
	}
	for _, want := range []string{"kube-controller-manager did not come back", "not within 10s", "ended", "crictl", "not restarted yet: kube-scheduler"} {
		if !strings.Contains(out.stderr, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if n.pids()["kube-scheduler"] != before["kube-scheduler"] {
		t.Error("the next was touched")
	}
	write(t, conf, string(good))
}

// restartByAgent has the agent renew what is near its end, and restart what takes that up
// by a restart alone. It has the capabilities of deploy/agent/kubepki-agent.service and
// that one which chroot takes, and mounts of its own, as under that unit.
func restartByAgent(t *testing.T, n *podNode) {
	agesConf(t, filepath.Join(n.root, "etc/kubernetes/scheduler.conf"), filepath.Join(n.root, "etc/kubernetes/pki/ca"))
	before := n.pids()
	agent := n.command(t, "agent", "--renew=due", "--restart", "--restart-timeout=60s", "--listen=", "--node-name=cp1", "--cluster-kubeconfig=/etc/kubernetes/super-admin.conf")
	at := slices.Index(agent.Args, "--")
	agent.Args = slices.Insert(agent.Args, at+1, "/usr/bin/unshare", "--mount", "--", "/usr/bin/setpriv", "--no-new-privs",
		"--bounding-set=-all,+chown,+dac_override,+fowner,+sys_chroot", "--inh-caps=-all", "--")
	log := filepath.Join(t.TempDir(), "agent.log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	agent.Stderr = f
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the scheduler is restarted", func(context.Context) error {
		said := string(read(t, log))
		if strings.Contains(said, "level=ERROR msg=\"not renewed") {
			t.Fatal(said)
		}
		if !strings.Contains(said, "msg=\"restarted and proved\" id=kube-scheduler") {
			return errors.New(said)
		}
		return nil
	})
	_ = agent.Process.Signal(os.Interrupt)
	_ = agent.Wait() // what it said counts
	said := string(read(t, log))
	t.Log(said)
	n.restarted(t, before, "kube-scheduler")
	if strings.Count(said, "msg=renewed") != 1 || strings.Count(said, "restarted and proved") != 1 || strings.Contains(said, "PRIVATE") {
		t.Errorf("it says\n%s", said)
	}
}

// agesConf is [ages] for the certificate within a kubeconfig.
func agesConf(t *testing.T, conf, authority string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	crt := write(t, filepath.Join(t.TempDir(), "old.crt"), string(user.ClientCertificateData))
	ages(t, crt, authority)
	user.ClientCertificateData = read(t, crt)
	if err := clientcmd.WriteToFile(*config, conf); err != nil {
		t.Fatal(err)
	}
}
