//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

func TestALabIsUsedAndResumed(t *testing.T) {
	l := newLab(t)
	if r := l.try("status"); r.code != 1 || !strings.Contains(r.stderr, "kubepki-lab up") {
		t.Errorf("status of no lab: %s", r.text())
	}
	l.run(t, "up", "--nodes", "1")
	t.Run("kubectl works from outside", func(t *testing.T) {
		l.await(t, "both nodes are Ready", func() bool {
			return strings.Count(l.kubectl(t, "get", "nodes", "--no-headers"), " Ready ") == 2
		})
	})
	t.Run("every component has a process, a certificate and is ready", func(t *testing.T) {
		for _, c := range l.status(t).Components {
			if !c.Ready || c.PID == 0 {
				t.Errorf("%+v", c)
			}
			if !isPod(c) && (c.Serving == nil || c.Serving.Serial == "") {
				t.Errorf("%s of %s presents nothing", c.Component, c.Node)
			}
			if err := syscall.Kill(c.PID, 0); err != nil {
				t.Errorf("process %d of %s: %v", c.PID, c.Component, err)
			}
		}
	})
	t.Run("a command runs beside the nodes, and on one", func(t *testing.T) {
		if out := l.run(t, "exec", "--", "kubectl", "get", "--raw", "/readyz"); out != "ok" {
			t.Errorf("beside: %q", out)
		}
		if out := l.run(t, "exec", "cp1", "--", "ls", "/etc/kubernetes/admin.conf"); !strings.Contains(out, "admin.conf") {
			t.Errorf("on cp1: %q", out)
		}
		if r := l.try("exec", "w1", "--", "sh", "-c", "exit 7"); r.code != 7 {
			t.Errorf("the command's exit code: %s", r.text())
		}
		if r := l.try("exec", "w9", "--", "true"); r.code != 2 {
			t.Errorf("on no node: %s", r.text())
		}
	})
	t.Run("up again says that it is up", func(t *testing.T) {
		if r := l.try("up"); r.code != 0 || !strings.Contains(r.stderr, "up already") {
			t.Error(r.text())
		}
		if r := l.try("up", "--control-planes", "3"); r.code != 2 || !strings.Contains(r.stderr, "made otherwise") {
			t.Error(r.text())
		}
	})
	serial := l.component(t, "cp1/kube-apiserver").Serving.Serial
	l.kubectl(t, "create", "configmap", "kept", "--from-literal=a=b")
	l.run(t, "down")
	l.nothingRuns(t)
	l.run(t, "up")
	if now := l.component(t, "cp1/kube-apiserver").Serving.Serial; now != serial {
		t.Errorf("the serving certificate is another one: %s, was %s", now, serial)
	}
	if data := l.kubectl(t, "get", "configmap", "kept", "-o", "jsonpath={.data.a}"); data != "b" {
		t.Errorf("what etcd held: %q", data)
	}
}

func TestEveryComponentComesBackAfterItWasKilled(t *testing.T) {
	l := newLab(t)
	l.run(t, "up", "--nodes", "1")
	for _, c := range l.status(t).Components {
		name := c.Node + "/" + c.Component
		t.Run(name, func(t *testing.T) {
			before := l.component(t, name)
			if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			l.await(t, name+" is ready again", func() bool {
				now, ok := l.find(t, name) // a pod's process is listed while it runs
				return ok && now.Ready && now.PID != before.PID && (isPod(c) || now.Restarts > before.Restarts)
			})
		})
	}
	l.await(t, "the lab is ready", func() bool { return l.status(t).Ready })
	// What the user stopped stays stopped until it is started.
	if out := l.run(t, "stop", "kube-scheduler"); !strings.Contains(out, "cp1/kube-scheduler stopped") {
		t.Error(out)
	}
	if c := l.component(t, "cp1/kube-scheduler"); c.State != "stopped" || c.PID != 0 {
		t.Errorf("%+v", c)
	}
	l.run(t, "start", "cp1/kube-scheduler")
	before := l.component(t, "cp1/kube-scheduler").PID
	l.run(t, "restart", "kube-scheduler")
	if c := l.component(t, "cp1/kube-scheduler"); c.PID == before || !c.Ready {
		t.Errorf("%+v, was process %d", c, before)
	}
	if r := l.try("stop", "kube-sheduler"); r.code != 2 || !strings.Contains(r.stderr, "cp1/kube-scheduler") {
		t.Errorf("a name that is none: %s", r.text())
	}
	if out := l.run(t, "logs", "--tail", "3", "cp1/etcd"); strings.Count(out, "\n") != 3 {
		t.Errorf("three lines of a log: %q", out)
	}
}

// isPod tells a container of a pod from a component of a node.
func isPod(c supervisor.Component) bool { return strings.Contains(c.Component, "/") }

func TestACrashedLabIsResumedFromItsFolder(t *testing.T) {
	l := newLab(t)
	l.run(t, "up", "--nodes", "0", "--pods=false")
	// The folder is locked by the outer half of the supervisor; nothing may
	// outlive it.
	outer := slices.Min(supervisors(t, l.dir))
	if err := syscall.Kill(outer, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.await(t, "no process of the crashed lab is left", func() bool { return len(supervisors(t, l.dir)) == 0 })
	if _, err := os.Stat(filepath.Join(l.dir, "run/control.sock")); err != nil {
		t.Errorf("the crash has left no socket, so that the test shows less than it says: %v", err)
	}
	if r := l.try("status"); r.code != 1 {
		t.Error(r.text())
	}
	l.run(t, "down") // nothing to do, and no error
	l.run(t, "up")
}

// supervisors are the processes that run the lab of a folder.
func supervisors(t *testing.T, dir string) []int {
	t.Helper()
	var pids []int
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		arguments, _ := os.ReadFile(file) // it may have ended
		if strings.Contains(string(arguments), "supervise\x00--dir\x00"+dir+"\x00") {
			var pid int
			if _, err := fmt.Sscanf(file, "/proc/%d/cmdline", &pid); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestTwoLabsRunBesideEachOther(t *testing.T) {
	first, second := newLab(t), newLab(t)
	first.run(t, "up", "--nodes", "0", "--pods=false")
	second.run(t, "up", "--nodes", "0", "--pods=false")
	// The same names and addresses, and yet two clusters.
	a, b := first.component(t, "cp1/kube-apiserver"), second.component(t, "cp1/kube-apiserver")
	if a.Serving.Address != b.Serving.Address || a.Serving.Serial == b.Serving.Serial {
		t.Errorf("%+v and %+v", a.Serving, b.Serving)
	}
	first.kubectl(t, "create", "configmap", "mine", "--from-literal=a=b")
	if r := second.program("kubectl", "get", "configmap", "mine"); !strings.Contains(r.stderr, "NotFound") {
		t.Errorf("the second lab's answer: %s", r.text())
	}
	first.run(t, "down")
	if !second.status(t).Ready {
		t.Error("the second lab suffers from the end of the first")
	}
}

func TestAPortThatSomebodyTookMeanwhileIsNotNeeded(t *testing.T) {
	l := newLab(t)
	l.run(t, "up", "--nodes", "0", "--pods=false")
	port := l.status(t).Proxy
	l.run(t, "down")
	listener, err := net.Listen("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l.run(t, "up")
	if now := l.status(t).Proxy; now == port {
		t.Errorf("the proxy is at %s still", now)
	}
	l.kubectl(t, "get", "--raw", "/readyz")
}

func TestThreeControlPlanesLoseOne(t *testing.T) {
	l := newLab(t)
	l.run(t, "up", "--control-planes", "3", "--nodes", "1")
	config := l.kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	if config != "https://10.77.0.10:6443" {
		t.Errorf("clients are sent to %s", config)
	}
	l.run(t, "stop", "cp1")
	for i := range 9 { // each of the three in turn
		l.kubectl(t, "create", "configmap", fmt.Sprintf("c%d", i), "--from-literal=a=b")
	}
	l.await(t, "another controller manager leads", func() bool {
		holder := l.kubectl(t, "get", "lease", "-n", "kube-system", "kube-controller-manager", "-o", "jsonpath={.spec.holderIdentity}")
		return holder != "" && !strings.HasPrefix(holder, "cp1_")
	})
	l.run(t, "start", "cp1")
	l.await(t, "all is ready again", func() bool { return l.status(t).Ready })
}

func TestWithoutNamespacesTheControlPlanesRunOnLoopback(t *testing.T) {
	l := newLab(t)
	if r := l.try("up", "--loopback", "--control-planes", "3", "--nodes", "2"); r.code != 0 || !strings.Contains(r.stderr, "light nodes instead of kubelets") {
		t.Fatal(r.text())
	}
	if out := l.kubectl(t, "get", "--raw", "/readyz"); out != "ok" {
		t.Errorf("from outside: %q", out)
	}
	if out := l.run(t, "exec", "--", "kubectl", "get", "--raw", "/readyz"); out != "ok" {
		t.Errorf("by exec: %q", out)
	}
	if r := l.try("exec", "cp1", "--", "true"); r.code != 2 {
		t.Errorf("on a node: %s", r.text())
	}
	for _, c := range l.status(t).Components {
		if c.Component == "load-balancer" {
			continue // it ends no TLS
		}
		if c.Serving == nil {
			t.Errorf("%s of %s presents nothing", c.Component, c.Node)
			continue
		}
		if host, _, err := net.SplitHostPort(c.Serving.Address); err != nil || !strings.HasPrefix(host, "127.77.0.1") {
			t.Errorf("%s of %s listens at %s", c.Component, c.Node, c.Serving.Address)
		}
	}
	// No namespace ends its processes with it, and yet none is left.
	for _, pid := range supervisors(t, l.dir) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	l.await(t, "nothing runs", func() bool { return len(l.running(t)) == 0 })
}
