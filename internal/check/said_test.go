package check_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestWhatIsNotJudgedIsSaid: an info each, and only where there is something to say.
func TestWhatIsNotJudgedIsSaid(t *testing.T) {
	for name, r := range map[string]struct {
		change func(c *testpki.Cluster)
		id     string // empty: nothing more than a whole cluster says
		path   string
		says   string
	}{
		"a whole cluster": {func(*testpki.Cluster) {}, "", "", ""},
		"the scheduler's manifest was not given": {func(c *testpki.Cluster) { c.Remove("cp1", "manifests/kube-scheduler.yaml") },
			"not-seen", "/etc/kubernetes/manifests", "no manifest of kube-scheduler"},
		"a credential comes from a program": {func(c *testpki.Cluster) { plugin(c, "admin.conf") }, "not-seen", "/etc/kubernetes/admin.conf", "exec"},
		"an expired anchor stands beside a good one": {func(c *testpki.Cluster) {
			c.SetConfCA("cp1", "scheduler.conf", append(c.Read("cp1", "pki/ca.crt"), expiredAnchor(c, "long ago")...))
		}, "bundle-expired", "/etc/kubernetes/scheduler.conf", "beside a good one"},
		"admin.conf was taken away": {func(c *testpki.Cluster) { c.Remove("cp1", "admin.conf") }, "file-missing", "/etc/kubernetes/admin.conf", "no component needs it"},
		"etcd's folder was not given": {func(c *testpki.Cluster) {
			for _, f := range []string{"ca.crt", "ca.key", "server.crt", "server.key", "peer.crt", "peer.key", "healthcheck-client.crt", "healthcheck-client.key"} {
				c.Remove("cp1", "pki/etcd/"+f)
			}
		}, "not-seen", "/etc/kubernetes/pki/etcd", "not in what was given"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			r.change(c)
			var more []check.Finding
			for _, f := range c.Verify(check.Options{}).Findings {
				if f.ID != "kubelet-unverified" { // as kubeadm leaves it
					more = append(more, f)
				}
			}
			if r.id == "" && len(more) == 0 {
				return
			}
			if len(more) != 1 || more[0].ID != r.id || more[0].Path != r.path || more[0].Severity != check.Info || !strings.Contains(more[0].Cause, r.says) {
				t.Errorf("want the one info %s at %s that says %q, got:\n%s", r.id, r.path, r.says, describe(more))
			}
		})
	}
}

// TestOwnersAreJudgedOnALiveRootAlone: a copy belongs to whoever made it.
func TestOwnersAreJudgedOnALiveRootAlone(t *testing.T) {
	for name, r := range map[string]struct {
		live bool
		file trust.File
		want string
	}{
		"a person owns a key":                 {true, trust.File{Mode: 0o600, UID: 1000, Private: true}, "key-permissions"},
		"a person owns a folder of keys":      {true, trust.File{Mode: 0o700, UID: 1000, Private: true, IsDir: true}, "key-permissions"},
		"a person owns a copy of a key":       {false, trust.File{Mode: 0o600, UID: 1000, Private: true}, ""},
		"a person owns a certificate":         {true, trust.File{Mode: 0o644, UID: 1000}, ""},
		"root owns a key":                     {true, trust.File{Mode: 0o600, UID: 0, Private: true}, ""},
		"a service's own user owns its key":   {true, trust.File{Mode: 0o600, UID: 998, Private: true}, ""},
		"nobody could see the owner of a key": {true, trust.File{Mode: 0o600, UID: -1, Private: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.file.Place = trust.Place{Path: "/etc/kubernetes/pki/x.key"}
			got := check.Run(&trust.Graph{Nodes: []trust.Node{{Live: r.live, Files: []trust.File{r.file}}}}, check.Options{At: testpki.At}).Findings
			ids := []string{}
			for _, f := range got {
				ids = append(ids, f.ID)
			}
			if want := strings.Fields(r.want); !slices.Equal(ids, append([]string{}, want...)) {
				t.Errorf("want %v, got %v", want, got)
			}
			if r.want != "" && (got[0].Severity != check.Warning || !strings.Contains(got[0].Cause, "user 1000")) {
				t.Errorf("want a warning that names the user: %+v", got[0])
			}
		})
	}
}

// TestAnyFrontProxyOfASharedAuthorityIsAnError: two faults that are worse together.
func TestAnyFrontProxyOfASharedAuthorityIsAnError(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	setFlag("kube-apiserver", "requestheader-client-ca-file", pki+"front-proxy-ca.crt", pki+"ca.crt")(c)
	c.Reissue("cp1", "front-proxy-client", "ca", nil)
	setFlag("kube-apiserver", "requestheader-allowed-names", "front-proxy-client", "")(c)
	got := weighty(c.Verify(check.Options{}))
	if len(got) != 2 || got[0].ID != "authority-shared" || got[1].ID != "requestheader-any-name" || got[1].Severity != check.Error {
		t.Errorf("want authority-shared and requestheader-any-name, errors both, got:\n%s", describe(got))
	}
}
