package restart

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/testpki"
)

func TestWhatTheKubeletHasToldIsAsked(t *testing.T) {
	since := time.Date(2026, 6, 2, 10, 0, 0, 700e6, time.UTC)
	pod := func(started string, ready bool, container string) map[string]any {
		state := map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff"}}
		if started != "" {
			state = map[string]any{"running": map[string]any{"startedAt": started}}
		}
		return map[string]any{"status": map[string]any{"containerStatuses": []any{map[string]any{"name": "sidecar"}, map[string]any{"name": container, "ready": ready, "state": state}}}}
	}
	lease := func(renewed string) map[string]any {
		return map[string]any{"spec": map[string]any{"renewTime": renewed}}
	}
	static := &Target{Node: "cp1", Component: "etcd", Kind: StaticPod}
	static.Source.Path = manifestPath
	kubelet := &Target{Node: "cp1", Component: "kubelet", Kind: Unit}
	const podPath, leasePath = "/api/v1/namespaces/kube-system/pods/etcd-cp1", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/cp1"
	for name, c := range map[string]struct {
		target *Target
		path   string
		object any
		change func(*testpki.Cluster, *testpki.Running)
		want   string // of the error
	}{
		"a container that has started since": {target: static, path: podPath, object: pod("2026-06-02T10:00:00Z", true, "etcd")},
		"the one before":                     {target: static, path: podPath, object: pod("2026-06-02T09:59:59Z", true, "etcd"), want: "does not tell yet"},
		"one that is not ready":              {target: static, path: podPath, object: pod("2026-06-02T10:00:03Z", false, "etcd"), want: "is not ready"},
		"one that waits":                     {target: static, path: podPath, object: pod("", false, "etcd"), want: "does not tell yet"},
		"another container":                  {target: static, path: podPath, object: pod("2026-06-02T10:00:03Z", true, "other"), want: "tells nothing yet"},
		"no mirror pod":                      {target: static, path: "/elsewhere", want: "no mirror pod kube-system/etcd-cp1"},
		"an API server that does not answer": {target: static, path: podPath, change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.11:6443") }},
		"a kubelet that the API server refuses": {target: static, path: podPath, change: func(c *testpki.Cluster, _ *testpki.Running) {
			c.ReissueConf("cp1", "kubelet.conf", "front-proxy-ca", nil)
		}},
		"an API server that is somebody else": {target: static, path: podPath, change: func(c *testpki.Cluster, _ *testpki.Running) {
			c.SetConfCA("cp1", "kubelet.conf", c.Read("cp1", "pki/etcd/ca.crt"))
		}},
		"a kubelet without a credential":            {target: static, path: podPath, change: func(c *testpki.Cluster, _ *testpki.Running) { c.Remove("cp1", "kubelet.conf") }},
		"a lease that was renewed":                  {target: kubelet, path: leasePath, object: lease("2026-06-02T10:00:02.123456Z")},
		"a lease of before":                         {target: kubelet, path: leasePath, object: lease("2026-06-02T09:59:58.123456Z"), want: "lease of node cp1 is not renewed"},
		"no lease":                                  {target: kubelet, path: "/elsewhere", want: "lease of node cp1 is not renewed"},
		"a unit of another component has no mirror": {target: &Target{Node: "cp1", Component: "etcd", Kind: Unit}, path: "/elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := testpki.New(t, testpki.HA)
			r := cluster.Run()
			r.Name("api.example.test", "10.0.0.11")
			r.Publish(c.path, c.object)
			if c.change != nil {
				c.change(cluster, r)
			}
			m := &Machine{Root: filepath.Join(cluster.Dir, "cp1")}
			err := m.Told(t.Context(), clusterOf(t, cluster, r), c.target, since)
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
}
