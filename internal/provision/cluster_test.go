package provision_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/provision"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// single returns the smallest cluster: one control plane.
func single(t *testing.T, change ...func(*catalog.Cluster)) *catalog.Cluster {
	t.Helper()
	c := &catalog.Cluster{
		Algorithm: "ECDSA-P256", Validity: 1000 * time.Hour, CAValidity: 5000 * time.Hour,
		ControlPlanes: []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11")}},
	}
	for _, f := range change {
		f(c)
	}
	c, err := config.Complete(c, config.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// several returns a cluster with each kind of node.
func several(t *testing.T, change ...func(*catalog.Cluster)) *catalog.Cluster {
	t.Helper()
	return single(t, append([]func(*catalog.Cluster){func(c *catalog.Cluster) {
		c.ControlPlaneEndpoint = "api.example.test:6443"
		c.ControlPlanes = append(c.ControlPlanes, catalog.ControlPlane{Name: "cp2", Address: netip.MustParseAddr("10.0.0.12")})
		c.Workers = []catalog.Worker{{Name: "w1", Address: netip.MustParseAddr("10.0.0.21")}}
		c.EtcdMembers = []catalog.EtcdMember{
			{Name: "etcd1", Address: netip.MustParseAddr("10.0.0.31")},
			{Name: "etcd2", Address: netip.MustParseAddr("10.0.0.32")},
		}
		c.Users = []catalog.User{{Name: "jane", Groups: []string{"dev"}, Validity: 24 * time.Hour}}
		c.KubeProxy = true
	}}, change...)...)
}

func shape(s catalog.Shape, kubelet bool) func(*catalog.Cluster) {
	return func(c *catalog.Cluster) { c.Shape, c.KubeletAuthority = s, kubelet }
}

func try(o provision.Options) (*provision.Planned, error) {
	if o.Now.IsZero() {
		o.Now = now
	}
	p, err := provision.Plan(o)
	if err != nil {
		return nil, err
	}
	return p, p.Apply(context.Background(), nil)
}

func must(t *testing.T, o provision.Options) *provision.Planned {
	t.Helper()
	p, err := try(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refused checks that the plan is refused with a cause and a hint, and that
// nothing changed on the disk.
func refused(t *testing.T, o provision.Options, want string) {
	t.Helper()
	before := tree(t, o.Dir)
	_, err := try(o)
	var r *provision.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got error %v, want a refusal: %s", err, want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("refused with\n%s\nwant\n%s", err, want)
	}
	if r.Hint() == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("refusal %q has hint %q: want one line and a hint", err, r.Hint())
	}
	if d := cmp.Diff(before, tree(t, o.Dir)); d != "" {
		t.Errorf("a refused plan changed the disk:\n%s", d)
	}
}

// tree returns mode and content of each file and folder by its path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if !d.IsDir() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			content = string(data)
		}
		relative, err := filepath.Rel(dir, name)
		all[relative] = fmt.Sprintf("%s %s", info.Mode(), content)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func actions(p *provision.Planned) map[provision.Action]int {
	count := map[provision.Action]int{}
	for _, n := range p.Nodes {
		for _, e := range n.Entries {
			count[e.Action]++
		}
	}
	return count
}
