package catalog_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Where a change of the authority's file needs a restart, and where not.
func ExampleReload() {
	for _, version := range []string{"v1.35.4", "v1.37.2"} {
		t, _ := catalog.Reload(catalog.APIServer, "kubelet-certificate-authority", version)
		fmt.Println(version, t.Manner, t.Within)
	}
	t, known := catalog.Reload(catalog.Etcd, "trusted-ca-file", "3.7.3-0")
	fmt.Println(t.Manner, known)
	// Output:
	// v1.35.4 restart 0s
	// v1.37.2 by itself 5m0s
	// restart true
}

func TestReloadKnowsVersions(t *testing.T) {
	tests := []struct {
		name, component, setting, version string
		want                              catalog.Manner // empty: not known
	}{
		{"a patch does not matter", catalog.Scheduler, "certificate-authority", "v1.36.0", catalog.ByItself},
		{"a pre-release counts as its minor", catalog.Scheduler, "certificate-authority", "v1.36.0-rc.1", catalog.ByItself},
		{"a version without v and patch", catalog.Scheduler, "certificate-authority", "1.35", catalog.AtRestart},
		{"a version that is to come is taken for the newest", catalog.Pod, "ca.crt", "v2.0.0", catalog.ByItself},
		{"a version before all that were measured", catalog.APIServer, "tls-cert-file", "v1.34.9", ""},
		{"an etcd before all that were measured", catalog.Etcd, "cert-file", "3.5.21-0", ""},
		{"no version", catalog.APIServer, "tls-cert-file", "", ""},
		{"a version that is none", catalog.APIServer, "tls-cert-file", "v1.x", ""},
		{"a setting that is not listed", catalog.APIServer, "encryption-provider-config", "v1.37.2", ""},
		{"a component that is not listed", "sshd", "tls-cert-file", "v1.37.2", ""},
	}
	for _, test := range tests {
		got, known := catalog.Reload(test.component, test.setting, test.version)
		if got.Manner != test.want || known != (test.want != "") {
			t.Errorf("%s: %q, known %t; want %q", test.name, got.Manner, known, test.want)
		}
	}
}

// The rows of one setting follow one another without a gap and without an
// overlap.
func TestReloadRowsFollowOneAnother(t *testing.T) {
	last := map[string]string{} // where the row before ends
	for _, r := range catalog.Reloads() {
		key := r.Component + " " + r.Setting
		if to, seen := last[key]; seen && to != r.From {
			t.Errorf("%s: a row ends at %q and the next begins at %q", key, to, r.From)
		}
		last[key] = r.To
		if r.Source == "" || (r.Manner == catalog.ByItself) != (r.Within > 0) || (r.Manner == catalog.AtRestart) != (r.Live == "") {
			t.Errorf("%s: %+v", key, r.Takeup)
		}
		if r.Within > 10*time.Minute {
			t.Errorf("%s: %s", key, r.Within)
		}
	}
	for key, to := range last {
		if to != "" {
			t.Errorf("%s: no row from %s on", key, to)
		}
	}
}

// A planner has to know of every file that verify reads.
func TestReloadKnowsEveryFileThatAComponentNames(t *testing.T) {
	for _, component := range append(catalog.Components(), catalog.Kubelet, catalog.KubeProxy) {
		for _, use := range catalog.FlagUses(component) {
			if !slices.ContainsFunc(catalog.Reloads(), func(r catalog.ReloadRow) bool {
				return r.Component == component && r.Setting == use.Flag
			}) {
				t.Errorf("no row for --%s of %s", use.Flag, component)
			}
		}
	}
}
