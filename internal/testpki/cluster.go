package testpki

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
)

// Made is when all clusters of this package were made; At is a time at which
// they are healthy.
var (
	Made = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	At   = Made.Add(24 * time.Hour)
)

// Kind names a cluster that [New] makes.
type Kind string

// The kinds of cluster. All but Bare have static-pod manifests.
const (
	Single       Kind = "single"       // cp1, stacked etcd
	Bare         Kind = "bare"         // cp1 without manifests, as kubeadm's certs phase leaves it
	HA           Kind = "ha"           // cp1, cp2, cp3 behind an endpoint, worker w1
	Intermediate Kind = "intermediate" // cp1 with three intermediates below one root
	KubeletCA    Kind = "kubelet-ca"   // cp1 and w1, kubelets with an authority of their own
	Shared       Kind = "shared"       // cp1, one authority for cluster and etcd
	ExternalEtcd Kind = "external-etcd"
)

// Cluster is a cluster's credentials on disk, free to be broken.
type Cluster struct {
	t *testing.T
	// Dir holds one root per node, under the node's name.
	Dir string
}

var made sync.Map // Kind → func() (string, error)

// New returns a copy of a healthy cluster of a kind. The cluster itself is made
// once per test binary, with ECDSA keys, which are quick to make.
func New(t *testing.T, k Kind) *Cluster {
	t.Helper()
	once, _ := made.LoadOrStore(k, sync.OnceValues(func() (string, error) { return provisionKind(k) }))
	dir, err := once.(func() (string, error))()
	if err != nil {
		t.Fatalf("making the %s cluster: %v", k, err)
	}
	c := &Cluster{t: t, Dir: filepath.Join(t.TempDir(), string(k))}
	if err := copyTree(dir, c.Dir); err != nil {
		t.Fatalf("copying the %s cluster: %v", k, err)
	}
	return c
}

// copyTree copies a tree with its modes, which os.CopyFS widens.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, info.Mode().Perm())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}

func provisionKind(k Kind) (string, error) {
	dir, err := os.MkdirTemp("", "kubepki-test-")
	if err != nil {
		return "", err
	}
	cluster, err := config.Complete(wanted(k), config.Host{})
	if err != nil {
		return "", err
	}
	plan, err := provision.Plan(provision.Options{Cluster: cluster, Dir: dir, PerNode: true, Manifests: k != Bare, Now: Made})
	if err != nil {
		return "", err
	}
	defer plan.Close()
	return dir, plan.Apply(context.Background(), func() {})
}

func wanted(k Kind) *catalog.Cluster {
	c := &catalog.Cluster{Algorithm: string(issue.ECDSAP256), Validity: catalog.DefaultValidity, CAValidity: catalog.DefaultCAValidity}
	c.ControlPlanes = []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11")}}
	w1 := catalog.Worker{Name: "w1", Address: netip.MustParseAddr("10.0.0.21")}
	switch k {
	case HA:
		c.ControlPlaneEndpoint = "api.example.test:6443"
		c.ControlPlanes = append(c.ControlPlanes,
			catalog.ControlPlane{Name: "cp2", Address: netip.MustParseAddr("10.0.0.12")},
			catalog.ControlPlane{Name: "cp3", Address: netip.MustParseAddr("10.0.0.13")})
		c.Workers = []catalog.Worker{w1}
	case Intermediate:
		c.Shape = catalog.Intermediate
	case KubeletCA:
		c.KubeletAuthority, c.Workers = true, []catalog.Worker{w1}
	case Shared:
		c.Shape = catalog.Shared
	case ExternalEtcd:
		c.EtcdMembers = []catalog.EtcdMember{{Name: "etcd1", Address: netip.MustParseAddr("10.0.0.31")}}
	}
	return c
}

// Clean removes what the package made; call it at the end of TestMain.
func Clean() {
	made.Range(func(_, once any) bool {
		if dir, _ := once.(func() (string, error))(); strings.Contains(dir, "kubepki-test-") {
			os.RemoveAll(dir)
		}
		return true
	})
}
