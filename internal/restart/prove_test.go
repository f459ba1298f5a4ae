package restart

import (
	"crypto/x509"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// clusterOf reads a cluster of tests anew, with the servers that run.
func clusterOf(t *testing.T, c *testpki.Cluster, r *testpki.Running) Cluster {
	t.Helper()
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []trust.Node
	keys := probe.Keys{}
	for _, e := range entries {
		if e.Name() == catalog.AuthoritiesDir || e.Name() == catalog.UsersDir {
			continue
		}
		node, ring, err := layout.Read(filepath.Join(c.Dir, e.Name()), layout.Options{Name: e.Name()})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
		maps.Copy(keys, ring)
	}
	return Cluster{Graph: catalog.Wire(nodes), Keys: keys, Probe: probe.Options{Dial: r.Dial, Timeout: testpki.LiveTimeout, At: testpki.At}}
}

// healthy lets the etcd members of a running cluster say how they are; ill ones say no.
func healthy(r *testpki.Running, members map[string]string, ill ...string) {
	for node, address := range members {
		s := r.Etcd(node, "server")
		version := s.Handler
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			sick := strings.Contains(strings.Join(ill, " "), node)
			switch {
			case q.URL.Path == "/health" && sick:
				w.WriteHeader(http.StatusServiceUnavailable)
				say(w, map[string]string{"health": "false", "reason": "RAFT NO LEADER"})
			case q.URL.Path == "/health":
				say(w, map[string]string{"health": "true"})
			case q.URL.Path == "/v3/cluster/member/list" && q.Method == http.MethodPost:
				var list []map[string]any
				for other, at := range members {
					list = append(list, map[string]any{"ID": "id of " + other, "name": other, "clientURLs": []string{"https://" + at}})
				}
				list = append(list, map[string]any{"ID": "9", "name": "learner", "clientURLs": []string{"https://10.0.0.99:2379"}, "isLearner": true})
				say(w, map[string]any{"header": map[string]string{"member_id": "id of " + node}, "members": list})
			default:
				version.ServeHTTP(w, q)
			}
		})
		r.Start(address, s)
	}
}

func say(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

var threeMembers = map[string]string{"cp1": "10.0.0.11:2379", "cp2": "10.0.0.12:2379", "cp3": "10.0.0.13:2379"}

func TestAMemberMayEndOnlyWhereTheOthersAreAQuorum(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testpki.Cluster, *testpki.Running)
		target string
		want   string // of the error
		said   string
	}{
		"all are healthy":           {},
		"one of the others is ill":  {change: func(_ *testpki.Cluster, r *testpki.Running) { healthy(r, threeMembers, "cp3") }, want: "of its 3 members cp3 (https://10.0.0.13:2379/health says 503"},
		"one of the others is dead": {change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.12:2379") }, want: "cp2 ("},
		"the one itself is ill":     {change: func(_ *testpki.Cluster, r *testpki.Running) { healthy(r, threeMembers, "cp1", "cp2") }, said: "no quorum now"},
		"the one itself is dead":    {change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.11:2379") }, said: "no quorum now"},
		"two members have none to lose": {change: func(_ *testpki.Cluster, r *testpki.Running) {
			healthy(r, map[string]string{"cp1": "10.0.0.11:2379", "cp2": "10.0.0.12:2379"})
		}, said: "etcd has 2 members"},
		"without a list nobody knows":          {change: func(c *testpki.Cluster, r *testpki.Running) { noList(r) }, said: "is not known"},
		"without a credential nobody knows":    {change: func(c *testpki.Cluster, _ *testpki.Running) { noClients(c) }, said: "no client certificate"},
		"other components may end at any time": {target: "kube-apiserver", change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.12:2379") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := testpki.New(t, testpki.HA)
			r := cluster.Run()
			healthy(r, threeMembers)
			if c.change != nil {
				c.change(cluster, r)
			}
			var said []string
			target := &Target{Node: "cp1", Component: "etcd"}
			if c.target != "" {
				target.Component = c.target
			}
			err := MayStop(t.Context(), clusterOf(t, cluster, r), target, func(s string) { said = append(said, s) })
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
			if text := strings.Join(said, " "); (c.said == "") != (text == "") || !strings.Contains(text, c.said) {
				t.Errorf("want %q, got %q", c.said, text)
			}
		})
	}
}

// noList is an etcd without its gateway for JSON.
func noList(r *testpki.Running) {
	s := r.Etcd("cp1", "server")
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/health" {
			say(w, map[string]string{"health": "true"})
			return
		}
		http.NotFound(w, q)
	})
	r.Start("10.0.0.11:2379", s)
}

func noClients(c *testpki.Cluster) {
	for _, node := range []string{"cp1", "cp2", "cp3"} {
		for _, key := range []string{"apiserver-etcd-client.key", "etcd/healthcheck-client.key", "etcd/server.key", "etcd/peer.key"} {
			c.Remove(node, "pki/"+key)
		}
	}
}

// TestWhatIsProvedAfterARestart: each bad case is one that a restart can leave, or
// that a process which was not restarted shows.
func TestWhatIsProvedAfterARestart(t *testing.T) {
	reissue := func(c *testpki.Cluster, file, authority string) {
		c.Reissue("cp1", file, authority, func(x *x509.Certificate) {})
	}
	for name, c := range map[string]struct {
		target string
		change func(*testpki.Cluster, *testpki.Running)
		want   string // of the error
	}{
		"kube-apiserver as it should be": {target: "kube-apiserver"},
		"etcd as it should be":           {target: "etcd"},
		"a scheduler as it should be":    {target: "kube-scheduler"},
		"a kubelet as it should be":      {target: "kubelet"},
		"it serves the old pair":         {target: "kube-apiserver", change: func(c *testpki.Cluster, _ *testpki.Running) { reissue(c, "apiserver", "ca") }, want: "serving-stale"},
		"another serves an old pair":     {target: "etcd", change: func(c *testpki.Cluster, _ *testpki.Running) { reissue(c, "apiserver", "ca") }},
		"etcd trusts the old authority": {target: "etcd", change: func(c *testpki.Cluster, _ *testpki.Running) {
			c.Recreate("cp1", "etcd/ca")
			reissue(c, "etcd/server", "etcd/ca")
		}, want: "10.0.0.11:2379/health: tls: failed to verify certificate"},
		"it is not up":            {target: "kube-apiserver", change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.11:6443") }, want: "unreachable"},
		"another one's is not up": {target: "kube-apiserver", change: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.12:6443"); r.Stop("10.0.0.12:2379") }},
		"etcd without a quorum":   {target: "etcd", change: func(_ *testpki.Cluster, r *testpki.Running) { healthy(r, threeMembers, "cp1") }, want: "RAFT NO LEADER"},
		"nobody takes the scheduler's new credential": {target: "kube-scheduler", change: func(c *testpki.Cluster, _ *testpki.Running) {
			c.ReissueConf("cp1", "scheduler.conf", "front-proxy-ca", func(x *x509.Certificate) {})
		}, want: "refuses /etc/kubernetes/scheduler.conf: 401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := testpki.New(t, testpki.HA)
			r := cluster.Run()
			healthy(r, threeMembers)
			if c.change != nil {
				c.change(cluster, r)
			}
			err := Prove(t.Context(), clusterOf(t, cluster, r), &Target{Node: "cp1", Component: c.target})
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
}

// TestStaleTargetsAreThoseOfLiveFindings and no others.
func TestStaleTargetsAreThoseOfLiveFindings(t *testing.T) {
	cluster := testpki.New(t, testpki.HA)
	r := cluster.Run()
	healthy(r, threeMembers)
	cluster.Reissue("cp2", "etcd/server", "etcd/ca", func(x *x509.Certificate) {})
	cluster.Reissue("cp3", "apiserver", "ca", func(x *x509.Certificate) {})
	c := clusterOf(t, cluster, r)
	c.Graph.Observations = probe.Run(t.Context(), c.Graph, catalog.Servers(c.Graph), c.Keys, c.Probe)
	findings := check.Run(c.Graph, check.Options{At: testpki.At}).Findings
	targets := Stale(c.Graph, findings)
	if got := strings.Join(ids(targets), " "); got != "cp2/etcd cp3/kube-apiserver" {
		t.Errorf("%s", got)
	}
	for _, f := range findings {
		if f.ID != "serving-stale" {
			continue
		}
		if want := "kubepki node restart " + strings.SplitN(f.Processes()[0], "/", 2)[1] + " --yes"; f.Fix != want || f.FixKind != check.FixCommand || f.FixNote == "" {
			t.Errorf("%s (%s) # %s", f.Fix, f.FixKind, f.FixNote)
		}
	}
}

func TestHealthIsAskedAsTheKubeletDoes(t *testing.T) {
	status := http.StatusOK
	server := newHealthServer(t, &status)
	kubelet := trust.Component{Name: "kubelet", Flags: map[string][]string{"healthz-port": {server}}}
	g := &trust.Graph{Nodes: []trust.Node{{Components: []trust.Component{kubelet}}}}
	for code, want := range map[int]string{200: "", 301: "", 401: "", 403: "", 404: "says 404", 500: "[-]etcd failed", 503: "[-]etcd failed"} {
		status = code
		err := new(Machine).Health(t.Context(), g, &Target{Component: "kubelet", Kind: Unit})
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: want %q, got %v", code, want, err)
		}
	}
	for name, flags := range map[string]map[string][]string{"nobody listens": {"healthz-port": {"1"}}, "none is served": {"healthz-port": {"0"}}} {
		g.Nodes[0].Components[0].Flags = flags
		if err := new(Machine).Health(t.Context(), g, &Target{Component: "kubelet", Kind: Unit}); (err == nil) != (name == "none is served") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for component, want := range map[string]string{"kube-apiserver": "https://127.0.0.1:6443/readyz", "kube-scheduler": "https://127.0.0.1:10259/healthz", "kube-controller-manager": "https://127.0.0.1:10257/healthz",
		"kubelet": "http://127.0.0.1:10248/healthz", "etcd": "", "kube-proxy": ""} {
		if got := defaultHealth(&trust.Component{Name: component}); got != want {
			t.Errorf("%s: %s", component, got)
		}
	}
	etcd := &trust.Component{Name: "etcd", Flags: map[string][]string{"listen-metrics-urls": {"http://127.0.0.1:2381,http://10.0.0.1:2381"}}}
	if got := defaultHealth(etcd); got != "http://127.0.0.1:2381/health" {
		t.Error(got)
	}

}

// newHealthServer answers with a status on loopback, and returns its port.
func newHealthServer(t *testing.T, status *int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(*status)
		_, _ = w.Write([]byte("[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n"))
	}))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	return port
}
