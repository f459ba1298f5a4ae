package restart

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func graph(t *testing.T, k testpki.Kind) *trust.Graph {
	t.Helper()
	return clusterOf(t, testpki.New(t, k), nil).Graph
}

func TestWhatIsRestartedForAChangedFile(t *testing.T) {
	g := graph(t, testpki.HA)
	const pki = "/etc/kubernetes/pki/"
	at := func(node string, files ...string) []trust.Place {
		var all []trust.Place
		for _, f := range files {
			all = append(all, trust.Place{Node: node, Path: f})
		}
		return all
	}
	version := func(v string) Facts { return Facts{Version: func(*trust.Component) string { return v }} }
	for name, c := range map[string]struct {
		changed []trust.Place
		facts   Facts
		want    string
	}{
		"a serving pair is taken up by itself":               {changed: at("cp1", pki+"apiserver.crt", pki+"apiserver.key"), facts: version("v1.37.2")},
		"etcd reads its pairs at each handshake":             {changed: at("cp1", pki+"etcd/server.crt", pki+"etcd/peer.key")},
		"etcd's authority is read at the start":              {changed: at("cp1", pki+"etcd/ca.crt"), want: "cp1/etcd cp1/kube-apiserver"},
		"the keys of tokens":                                 {changed: at("cp2", pki+"sa.pub", pki+"sa.key"), want: "cp2/kube-apiserver cp2/kube-controller-manager"},
		"the cluster's authority is published at a start":    {changed: at("cp1", pki+"ca.crt"), facts: version("v1.37.2"), want: "cp1/kube-controller-manager"},
		"before 1.36 kubelet's authority needs one too":      {changed: at("cp1", pki+"ca.crt"), facts: version("v1.35.4"), want: "cp1/kube-controller-manager"},
		"kubeconfigs are read at the start":                  {changed: at("cp3", "/etc/kubernetes/scheduler.conf", "/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/kubelet.conf"), want: "cp3/kube-controller-manager cp3/kube-scheduler cp3/kubelet"},
		"people read theirs whenever they run":               {changed: at("cp1", "/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf")},
		"workers come after the control planes":              {changed: append(at("w1", "/etc/kubernetes/kubelet.conf"), at("cp3", "/etc/kubernetes/kubelet.conf")...), want: "cp3/kubelet w1/kubelet"},
		"a file of another node is nobody's":                 {changed: at("w1", pki+"sa.pub")},
		"a field of a file is the file":                      {changed: []trust.Place{{Node: "cp1", Path: "/etc/kubernetes/scheduler.conf", Field: "users[0]"}}, want: "cp1/kube-scheduler"},
		"a file that is mounted alone is not seen to change": {changed: at("cp1", pki+"apiserver.crt"), facts: Facts{MountsAlone: func(_ *trust.Component, file string) bool { return file == pki+"apiserver.crt" }}, want: "cp1/kube-apiserver"},
	} {
		t.Run(name, func(t *testing.T) {
			targets := Plan(g, c.changed, c.facts)
			if got := strings.Join(ids(targets), " "); got != c.want {
				t.Errorf("want %q, got %q", c.want, got)
			}
			for _, x := range targets {
				if len(x.Why) == 0 || x.Component != catalog.Kubelet && (x.Kind != StaticPod || x.Source.Path != "/etc/kubernetes/manifests/"+x.Component+".yaml") ||
					x.Component == catalog.Kubelet && x.Unit != "kubelet.service" {
					t.Errorf("%+v", x)
				}
			}
		})
	}
}

// TestThePlanAndTheWordsAgree: what the plan of a renewal calls "restart X" is what
// is restarted, for each file of each component.
func TestThePlanAndTheWordsAgree(t *testing.T) {
	g := graph(t, testpki.HA)
	seen := 0
	for i := range g.Nodes {
		n := &g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			for _, r := range reads(n, c) {
				row, known := catalog.Reload(c.Name, r.setting, "v1.37.2")
				if c.Name == catalog.Etcd {
					row, known = catalog.Reload(c.Name, r.setting, "3.7.3")
				}
				want := restarts(c.Name) && (!known || row.Manner == catalog.AtRestart)
				version := Facts{Version: func(*trust.Component) string {
					return map[bool]string{true: "3.7.3", false: "v1.37.2"}[c.Name == catalog.Etcd]
				}}
				got := slices.ContainsFunc(Plan(g, []trust.Place{{Node: n.Name, Path: r.file}}, version), func(x Target) bool {
					return x.ID() == c.ID() && slices.ContainsFunc(x.Why, func(w string) bool { return strings.Contains(w, "("+r.setting+")") })
				})
				if seen++; got != want {
					t.Errorf("%s reads %s by %s: restarted %v, want %v", c.ID(), r.file, r.setting, got, want)
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("%d readings were looked at", seen)
	}
}

func TestComponentsAreNamed(t *testing.T) {
	g := graph(t, testpki.HA)
	all, err := Named(g, nil)
	if err != nil || len(all) != 16 || ids(all)[0] != "cp1/etcd" || ids(all)[15] != "w1/kubelet" {
		t.Errorf("%v %v", ids(all), err)
	}
	one, err := Named(g, []string{"cp2/kubelet", "kube-scheduler"})
	if got := strings.Join(ids(one), " "); err != nil || got != "cp1/kube-scheduler cp2/kube-scheduler cp2/kubelet cp3/kube-scheduler" {
		t.Errorf("%s %v", got, err)
	}
	for _, name := range []string{"kube-sheduler", "cp9/etcd", "w1/etcd", "admin"} {
		var none *NoTargetError
		if _, err := Named(g, []string{"etcd", name}); !errors.As(err, &none) || !strings.Contains(none.Hint(), "cp1/etcd") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHowComponentsAreKept: by where their flags were found.
func TestHowComponentsAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		layout, component, source string
		want                      Target
	}{
		"a manifest of any name": {"kubeadm", "etcd", "/etc/kubernetes/manifests/etcd-member", Target{Component: "etcd", Kind: StaticPod}},
		"a unit":                 {"hardway", "etcd", "/etc/systemd/system/etcd.service", Target{Component: "etcd", Kind: Unit, Unit: "etcd.service"}},
		"a drop-in of a unit":    {"hardway", "kubelet", "/etc/systemd/system/k.service.d/10.conf", Target{Component: "kubelet", Kind: Unit, Unit: "k.service"}},
		"kubeadm's kubelet":      {"kubeadm", "kubelet", "/var/lib/kubelet/config.yaml", Target{Component: "kubelet", Kind: Unit, Unit: "kubelet.service"}},
		"a process":              {"kubeadm", "kubelet", "/proc/7/cmdline", Target{Component: "kubelet", Kind: Process}},
		"nothing":                {"kubeadm", "kube-scheduler", "", Target{Component: "kube-scheduler", Kind: Unknown}},
		"a part of k3s":          {"k3s", "kube-apiserver", "", Target{Component: "k3s", Kind: Unit, Unit: "k3s.service", Also: []string{"kube-apiserver"}}},
		"the kubelet of a k3s":   {"k3s", "kubelet", "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d", Target{Component: "k3s-agent", Kind: Unit, Unit: "k3s-agent.service", Also: []string{"kubelet"}}},
		"a static pod of RKE2":   {"rke2", "kube-apiserver", "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml", Target{Component: "kube-apiserver", Kind: StaticPod}},
		"a part of k0s":          {"k0s", "etcd", "", Target{Component: "k0scontroller", Kind: Unit, Unit: "k0scontroller.service", Also: []string{"etcd"}}},
	} {
		t.Run(name, func(t *testing.T) {
			source := trust.Place{Path: c.source}
			n := trust.Node{Layout: c.layout, Components: []trust.Component{{Name: c.component, Source: source}}}
			got, err := Named(&trust.Graph{Nodes: []trust.Node{n}}, []string{c.component})
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			x := got[0]
			if x.Component != c.want.Component || x.Kind != c.want.Kind || x.Unit != c.want.Unit || !slices.Equal(x.Also, c.want.Also) || x.Source != source {
				t.Errorf("%+v", x)
			}
		})
	}
}

func TestTheManifestSaysHowAPodIsAsked(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	for component, want := range map[string]string{
		"kube-apiserver": "https://10.0.0.11:6443/readyz", "etcd": "http://127.0.0.1:2381/readyz",
		"kube-scheduler": "https://127.0.0.1:10259/readyz", "kube-controller-manager": "https://127.0.0.1:10257/healthz",
	} {
		pod, err := layout.ParseStaticPod(c.Read("cp1", "manifests/"+component+".yaml"))
		if err != nil || pod.Health != want || pod.Container != component || pod.Name != component || pod.Namespace != "kube-system" || pod.Grace.Seconds() != 30 {
			t.Errorf("%s: %+v %v", component, pod, err)
		}
	}
	if _, err := layout.ParseStaticPod([]byte("kind: Pod\nspec: {containers: [{name: x, image: nginx}]}")); !errors.Is(err, layout.ErrNoComponent) {
		t.Error(err)
	}
}

// TestWhatComesBackAfterARecovery: what reads a file at its start alone is restarted, what
// is down and has nobody to start it too, and all else is waited for; never more than
// reads the files.
func TestWhatComesBackAfterARecovery(t *testing.T) {
	const pki = "/etc/kubernetes/pki/"
	kubeadm, hardway := graph(t, testpki.Single), clusterOf(t, testpki.NewHardway(t, testpki.HardwayCfssl), nil).Graph
	node := hardway.Nodes[0].Name
	for name, c := range map[string]struct {
		g       *trust.Graph
		node    string
		changed []string
		down    []string
		want    string // in order; ~: waited for
	}{
		"the kubelet is down, and starts the static pods": {kubeadm, "cp1", []string{pki + "apiserver.crt", "/etc/kubernetes/scheduler.conf", pki + "etcd/server.crt"}, []string{"kubelet", "kube-apiserver"},
			"kubelet ~etcd ~kube-apiserver kube-scheduler"},
		"all runs, and takes the files up by itself":  {kubeadm, "cp1", []string{pki + "front-proxy-client.crt"}, nil, "~kube-apiserver"},
		"a kubelet that runs and reads none of them":  {kubeadm, "cp1", []string{pki + "etcd/peer.crt"}, []string{"etcd"}, "~etcd"},
		"its kubeconfig a kubelet reads at its start": {kubeadm, "cp1", []string{"/etc/kubernetes/kubelet.conf"}, nil, "kubelet"},
		"a worker's kubelet alone":                    {graph(t, testpki.HA), "w1", []string{"/etc/kubernetes/kubelet.conf"}, []string{"kubelet"}, "kubelet"},
		"people's files are no process's":             {kubeadm, "cp1", []string{"/etc/kubernetes/admin.conf"}, nil, ""},
		"units that are down are started":             {hardway, node, []string{"/var/lib/kubernetes/kubernetes.pem"}, []string{"kube-apiserver"}, "kube-apiserver"},
		"units that run are not":                      {hardway, node, []string{"/var/lib/kubernetes/kubernetes.pem"}, nil, "~kube-apiserver"},
	} {
		t.Run(name, func(t *testing.T) {
			var changed []trust.Place
			for _, f := range c.changed {
				changed = append(changed, trust.Place{Node: c.node, Path: f})
			}
			var got []string
			for _, x := range Comeback(c.g, changed, Facts{}, func(_, component string) bool { return !slices.Contains(c.down, component) }) {
				_, id := trust.SplitID(x.ID())
				if x.Await {
					id = "~" + id
				}
				if got = append(got, id); x.Node != c.node || len(x.Why) == 0 {
					t.Errorf("%+v", x)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("want %q, got %q", c.want, strings.Join(got, " "))
			}
		})
	}
}

// TestARecoveryThatWasInterruptedGoesOn: what an earlier run has changed is restarted by
// the next one, but for what has begun since.
func TestARecoveryThatWasInterruptedGoesOn(t *testing.T) {
	const pki, conf = "/etc/kubernetes/pki/", "/etc/kubernetes/"
	g := graph(t, testpki.Single)
	for name, c := range map[string]struct {
		changed, before, down, since []string
		want                         string // in order; ~: waited for
	}{
		"nothing was restarted yet":              {nil, []string{conf + "scheduler.conf", conf + "controller-manager.conf", pki + "apiserver.crt"}, nil, nil, "~kube-apiserver kube-controller-manager kube-scheduler"},
		"one of two was":                         {nil, []string{conf + "scheduler.conf", conf + "controller-manager.conf"}, nil, []string{"kube-controller-manager"}, "kube-scheduler"},
		"all were, and nothing is waited for":    {nil, []string{conf + "scheduler.conf", pki + "apiserver.crt"}, nil, []string{"kube-scheduler"}, ""},
		"what takes its files up by itself":      {nil, []string{pki + "apiserver.crt"}, nil, nil, ""},
		"but where it is down it is waited for":  {nil, []string{pki + "apiserver.crt"}, []string{"kube-apiserver"}, nil, "~kube-apiserver"},
		"this run's files count, whatever began": {[]string{conf + "scheduler.conf"}, []string{conf + "controller-manager.conf"}, nil, []string{"kube-scheduler", "kube-controller-manager"}, "kube-scheduler"},
		"nothing was ever changed":               {nil, nil, []string{"kube-scheduler"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			places := func(files []string) (all []trust.Place) {
				for _, f := range files {
					all = append(all, trust.Place{Node: "cp1", Path: f})
				}
				return all
			}
			var got []string
			for _, x := range GoOn(g, places(c.changed), places(c.before), Facts{},
				func(_, component string) bool { return !slices.Contains(c.down, component) },
				func(_, component string) bool { return slices.Contains(c.since, component) }) {
				_, id := trust.SplitID(x.ID())
				if x.Await {
					id = "~" + id
				}
				got = append(got, id)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("want %q, got %q", c.want, strings.Join(got, " "))
			}
		})
	}
}
