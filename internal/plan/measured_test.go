package plan

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

func TestWhatWasMeasuredIsMappedWithCare(t *testing.T) {
	restart, minutes := Reload{Uptake: Restart}, func(n time.Duration) Reload { return Reload{Uptake: Within, Within: n*time.Minute + margin} }
	watched := Reload{Uptake: Within, Within: time.Minute}
	for name, c := range map[string]struct {
		component, setting string
		old, current       Reload // 1.35.4 with 3.6.5, 1.37.2 with 3.7.3
	}{
		"read at each handshake":                     {catalog.Etcd, "peer-cert-file", Reload{Uptake: AtOnce}, Reload{Uptake: AtOnce}},
		"read at the start alone":                    {catalog.Etcd, "trusted-ca-file", restart, restart},
		"noticed":                                    {catalog.APIServer, "client-ca-file", minutes(1), minutes(1)},
		"an authority that a client names by path":   {catalog.APIServer, "kubelet-certificate-authority", restart, minutes(5)},
		"that of a scheduler's kubeconfig":           {catalog.Scheduler, SettingCAPath, restart, minutes(5)},
		"what is embedded in a kubeconfig":           {catalog.Scheduler, SettingEmbeddedCA, restart, restart},
		"what a kubelet serves with":                 {catalog.Kubelet, "tls-cert-file", restart, minutes(1)},
		"what a kubelet may write by itself":         {catalog.Kubelet, SettingCertificatePath, restart, restart},
		"the authority of a kubelet that rotates":    {catalog.Kubelet, SettingCAPath, restart, restart},
		"a kubelet's own credentials":                {catalog.Kubelet, "rotate-certificates", restart, restart},
		"a component that nobody knows":              {"billing", "tls-cert-file", restart, restart},
		"a setting that nobody knows":                {catalog.APIServer, "tls-cert-files", restart, restart},
		"an object in a pod's volume":                {pods, SettingRootCA, restart, minutes(7)},
		"an object that is watched":                  {extensionAPIServer, SettingAuthentication, watched, watched},
		"tokens in a pod's volume":                   {tokenBearers, SettingTokens, minutes(24*60 + 3), minutes(24*60 + 3)},
		"another setting of what runs in pods":       {pods, "tls-cert-file", restart, restart},
		"a flag that is one of another component":    {catalog.Scheduler, "root-ca-file", restart, restart},
		"a setting of etcd asked of the API servers": {catalog.APIServer, "trusted-ca-file", restart, restart},
	} {
		t.Run(name, func(t *testing.T) {
			old := Measured(Versions{Kubernetes: "v1.35.4", Etcd: "3.6.5", Programs: "v1.35.4"})(c.component, c.setting)
			if current := newest(c.component, c.setting); old != c.old || current != c.current {
				t.Errorf("got %+v and %+v, want %+v and %+v", old, current, c.old, c.current)
			}
		})
	}
}

// TestWhatIsNotKnownIsRestarted: of versions that were not measured, or that
// nobody named, nothing is hoped for.
func TestWhatIsNotKnownIsRestarted(t *testing.T) {
	questions := asked(t)
	for _, v := range []Versions{{}, {Kubernetes: "v1.34.9", Etcd: "3.5.30", Programs: "v1.34.0"}, {Kubernetes: "newest", Etcd: "v", Programs: "1"}} {
		reloads := Measured(v)
		for _, a := range questions {
			if how := reloads(a.component, a.setting); how.Uptake != Restart {
				t.Errorf("%+v: %s is said to take up %s: %+v", v, a.component, a.setting, how)
			}
		}
	}
}

// question is what the planner asks a table.
type question struct{ component, setting string }

// asked is all that the planner asks when each authority of each kind of
// cluster is replaced.
func asked(t *testing.T) []question {
	t.Helper()
	all := map[question]bool{}
	for _, s := range kubeadmShapes() {
		g := catalog.Wire(nodesOf(t, s))
		for _, name := range []string{catalog.ClusterCA, catalog.EtcdCA, catalog.FrontProxyCA, catalog.KubeletCA, catalog.RootCA, ServiceAccounts} {
			if !hasAuthority(g, name) {
				continue
			}
			_, r := rotation(t, s, name)
			r.Reloads = func(component, setting string) Reload {
				all[question{component, setting}] = true
				return newest(component, setting)
			}
			if _, err := Rotate(g, r); err != nil {
				t.Errorf("%s of %s: %v", name, s, err)
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b question) int {
		return strings.Compare(a.component+" "+a.setting, b.component+" "+b.setting)
	})
}

// TestTheMatrixKnowsWhatThePlannerAsks: a setting that has another name here
// than in the matrix would be restarted for ever, and nobody would notice.
func TestTheMatrixKnowsWhatThePlannerAsks(t *testing.T) {
	// What is in the matrix and is restarted with every version all the same.
	restarted := map[question]string{
		{catalog.Kubelet, SettingCertificatePath}:                       "a kubelet that rotates holds it in memory",
		{catalog.APIServer, "etcd-cafile"}:                              "measured",
		{catalog.APIServer, "service-account-key-file"}:                 "measured",
		{catalog.APIServer, "service-account-signing-key-file"}:         "measured",
		{catalog.ControllerManager, "root-ca-file"}:                     "measured",
		{catalog.ControllerManager, "service-account-private-key-file"}: "measured",
		{catalog.Etcd, "trusted-ca-file"}:                               "measured",
		{catalog.Etcd, "peer-trusted-ca-file"}:                          "measured",
		{catalog.ControllerManager, SettingEmbeddedCA}:                  "measured",
		{catalog.ControllerManager, SettingEmbeddedCertificate}:         "measured",
		{catalog.Scheduler, SettingEmbeddedCA}:                          "measured",
		{catalog.Scheduler, SettingEmbeddedCertificate}:                 "measured",
		{catalog.Kubelet, SettingEmbeddedCA}:                            "measured",
		{catalog.Kubelet, SettingEmbeddedCertificate}:                   "measured",
		{catalog.KubeProxy, SettingEmbeddedCA}:                          "measured",
		{catalog.KubeProxy, SettingEmbeddedCertificate}:                 "measured",
	}
	for _, a := range asked(t) {
		version := "v1.37.2"
		if a.component == catalog.Etcd {
			version = "3.7.3"
		}
		_, known := catalog.Reload(a.component, a.setting, version)
		known = known || slices.Contains([]string{pods, extensionAPIServer, tokenBearers}, a.component)
		if !known {
			t.Errorf("the matrix has no row for %s of %s", a.setting, a.component)
		}
		how := newest(a.component, a.setting)
		if _, listed := restarted[a]; listed != (how.Uptake == Restart) {
			t.Errorf("%s of %s is listed as restarted: %t; the table says %+v", a.setting, a.component, listed, how)
		}
		delete(restarted, a)
	}
	for a := range restarted {
		t.Errorf("%s of %s is listed, and the planner does not ask for it", a.setting, a.component)
	}
}

// TestLaterVersionsReloadNoLess: of several versions that run side by side the
// oldest is given to the planner.
func TestLaterVersionsReloadNoLess(t *testing.T) {
	rank := []Uptake{Restart, Within, AtOnce}
	for _, row := range catalog.Reloads() {
		if row.To == "" {
			continue
		}
		before, _ := catalog.Reload(row.Component, row.Setting, row.From)
		after, known := catalog.Reload(row.Component, row.Setting, row.To)
		was, is := takeup(before, true), takeup(after, known)
		if slices.Index(rank, is.Uptake) < slices.Index(rank, was.Uptake) || is.Uptake == was.Uptake && is.Within > was.Within {
			t.Errorf("%s of %s: %+v before %s, then %+v", row.Setting, row.Component, was, row.To, is)
		}
	}
}

// TestPlansAreSafeWithEachVersionThatWasMeasured: Rotate proves what it plans.
func TestPlansAreSafeWithEachVersionThatWasMeasured(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			g := catalog.Wire(nodesOf(t, c.shape))
			_, r := rotation(t, c.shape, c.replace)
			for _, table := range []Reloads{oldest, newest} {
				r.Reloads = table
				if p, err := Rotate(g, r); err != nil || len(p.Broken) > 0 {
					t.Errorf("%v\n%s", err, p)
				}
			}
		})
	}
}

// TestARestartIsAskedForWhereTheVersionNeedsOne: kube-apiserver takes up the
// kubelets' authority by itself since 1.36. A plan for 1.37 does not suffice
// for 1.35.
func TestARestartIsAskedForWhereTheVersionNeedsOne(t *testing.T) {
	s := shape{controlPlanes: 1, workers: 1, authorities: catalog.Separate, manifests: true, kubeletCA: true}
	g := catalog.Wire(nodesOf(t, s))
	_, r := rotation(t, s, catalog.KubeletCA)
	plans := map[string]*Plan{}
	for version, want := range map[string]Reload{"v1.35.4": {Uptake: Restart}, "v1.37.2": {Uptake: Within, Within: 5*time.Minute + margin}} {
		r.Reloads = Measured(Versions{Kubernetes: version, Etcd: "3.6.5", Programs: version})
		p, err := Rotate(g, r)
		if err != nil {
			t.Fatal(err)
		}
		plans[version] = p
		accept := &p.Steps[slices.IndexFunc(p.Steps, func(s Step) bool { return s.Kind == Accept })]
		i := slices.IndexFunc(accept.Loads, func(l Load) bool { return l.Setting == "kubelet-certificate-authority" })
		if i < 0 || accept.Loads[i].How != want || accept.Gate.Wait < want.Within {
			t.Errorf("%s: want %+v in the step accept:\n%s", version, want, p)
		}
	}
	r.Reloads = Measured(Versions{Kubernetes: "v1.35.4", Etcd: "3.6.5", Programs: "v1.35.4"})
	mustFault(t, Prove(g, r, plans["v1.37.2"].Steps), "the plan for 1.37 with 1.35")
	r.Reloads = Measured(Versions{Kubernetes: "v1.37.2", Etcd: "3.6.5", Programs: "v1.37.2"})
	if err := Prove(g, r, plans["v1.35.4"].Steps); err != nil {
		t.Errorf("the plan for 1.35 with 1.37: %v", err)
	}
}
