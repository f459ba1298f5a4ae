package layout

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// waitForEnd is a process that only has a command line.
func waitForEnd(string) error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// start starts a process with a command line and environment of its own, and
// makes it seen in a folder that stands for /proc.
func startAs(t *testing.T, proc string, environment []string, words ...string) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	cmd := child("wait", "")
	cmd.Args, cmd.Env = words, append(cmd.Env, environment...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	pid := strconv.Itoa(cmd.Process.Pid)
	for _, name := range []string{pid, "self"} {
		_ = os.Symlink("/proc/"+name, filepath.Join(proc, name))
	}
	return cmd.Process.Pid
}

// TestProcesses: what runs is read by its command line; what files configure is
// compared, what none configures is added.
func TestProcesses(t *testing.T) {
	proc := t.TempDir()
	old := startAs(t, proc, nil, "/usr/local/bin/kube-apiserver", "--tls-cert-file=/old.crt", "--client-ca-file", "/ca.crt")
	etcd := startAs(t, proc, []string{"ETCD_CERT_FILE=/etcd.crt"}, "etcd", "--name=a")
	startAs(t, proc, nil, "/bin/sh", "-c", "exec kube-scheduler --kubeconfig=/no")
	startAs(t, proc, nil, "/usr/bin/less", "kube-scheduler")
	startAs(t, proc, nil, "/var/lib/k0s/bin/kube-controller-manager", "--v=2")
	startAs(t, proc, nil, "kubelet", "--kubeconfig=/var/lib/rancher/rke2/agent/kubelet.kubeconfig")
	hyper := startAs(t, proc, nil, "/hyperkube", "kube-proxy", "--kubeconfig=/p.conf")
	r := unitNode(t, map[string]string{"kube-apiserver.service": "[Service]\nExecStart=/usr/local/bin/kube-apiserver --tls-cert-file=/new.crt --client-ca-file=/ca.crt\n"})
	r.units.running.folder = proc
	r.node.Layout = catalog.LayoutHardway
	r.readHardway()

	want := []trust.Process{{PID: old, Component: "kube-apiserver", Environment: true,
		Flags:   map[string][]string{"tls-cert-file": {"/old.crt"}, "client-ca-file": {"/ca.crt"}},
		Written: map[string][]string{"tls-cert-file": {"/new.crt"}, "client-ca-file": {"/ca.crt"}}}}
	if d := cmp.Diff(want, r.node.Processes); d != "" {
		t.Error(d)
	}
	var found []string
	for _, c := range r.node.Components {
		found = append(found, c.Name+" "+c.Source.Path)
	}
	at := func(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/cmdline" }
	for _, c := range []string{"kube-apiserver /etc/systemd/system/kube-apiserver.service", "etcd " + at(etcd), "kube-proxy " + at(hyper)} {
		if !strings.Contains(strings.Join(found, "\n"), c) {
			t.Errorf("no %s among %q", c, found)
		}
	}
	if len(found) != 3 {
		t.Errorf("components: %q", found)
	}
	c, _ := find(r.node.Components, func(c trust.Component) bool { return c.Name == catalog.Etcd })
	if v, _ := c.Flag("cert-file"); v != "/etcd.crt" || c.Setting("cert-file").Field != "ETCD_CERT_FILE" {
		t.Errorf("etcd's variable: %q at %v", v, c.Setting("cert-file"))
	}
}

// TestProcessThatSeesAnotherFile: what a container has mounted alone stays what it
// was; the same content in another file is no fault.
func TestProcessThatSeesAnotherFile(t *testing.T) {
	proc := t.TempDir()
	folder := filepath.Join(proc, "4711")
	for name, text := range map[string]string{"cmdline": "/usr/bin/etcd\x00--cert-file=/c.crt\x00--key-file=/k.key\x00--trusted-ca-file=/none\x00", "cgroup": "0::/kubepods.slice/x\n",
		"root/c.crt": "old", "root/k.key": "same"} {
		at := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := unitNode(t, map[string]string{"etcd.service": "[Service]\nExecStart=/usr/bin/etcd --cert-file=/c.crt --key-file=/k.key --trusted-ca-file=/none\n", "/c.crt": "new", "/k.key": "same"})
	r.units.running.folder = proc
	r.node.Layout = catalog.LayoutHardway
	r.readHardway()
	if len(r.node.Processes) != 1 || !cmp.Equal(r.node.Processes[0].OtherFiles, []string{"cert-file"}) || r.node.Processes[0].Environment {
		t.Errorf("%+v", r.node.Processes)
	}
}

// TestProcessesOfContainers: their paths are not the node's, so none is followed.
func TestProcessesOfContainers(t *testing.T) {
	proc := t.TempDir()
	folder := filepath.Join(proc, "4711")
	for name, text := range map[string]string{"cmdline": "kube-apiserver\x00--tls-cert-file=/x.crt\x00", "cgroup": "0::/kubepods.slice/x\n"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := unitNode(t, map[string]string{"etcd.service": "[Service]\nExecStart=/usr/bin/etcd --name=a\n"})
	r.units.running.folder = proc
	r.node.Layout = catalog.LayoutHardway
	r.readHardway()
	if len(r.node.Components) != 1 || len(r.node.Processes) != 0 {
		t.Errorf("components %+v, processes %+v", r.node.Components, r.node.Processes)
	}
	if len(r.node.NotSeen) != 1 || !strings.Contains(r.node.NotSeen[0].Reason, "--root /proc/4711/root") {
		t.Errorf("not seen: %+v", r.node.NotSeen)
	}
}
