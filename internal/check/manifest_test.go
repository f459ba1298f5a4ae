package check_test

import (
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// TestAManifestThatIsRefused: a component that cannot run is an error, and not health;
// a broken copy beside its manifest is an info.
func TestAManifestThatIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		file string
		want check.Severity
	}{
		"the apiserver's own": {"kube-apiserver.yaml", check.Error},
		"etcd's own":          {"etcd.yaml", check.Error},
		"a copy beside it":    {"kube-apiserver.yaml.save", check.Info},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.Single)
			m := mutation{name: name, brk: func(c *testpki.Cluster) {
				c.Write("cp1", "manifests/"+x.file, []byte("kind: Pod\nspec: {containers: [\n"))
			}}
			var about []check.Finding
			for _, f := range m.verify(t, c).Findings {
				if f.Path == manifest+x.file || strings.Contains(f.Cause, "is in what was given") {
					about = append(about, f)
				}
			}
			if len(about) != 1 || about[0].Severity != x.want || !strings.Contains(about[0].Cause, "is not YAML: see line ") || (about[0].ID == "file-unreadable") != (x.want == check.Error) {
				t.Errorf("got %s", describe(about))
			}
		})
	}
}
