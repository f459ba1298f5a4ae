package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/provision"
)

// CreateCredentials makes the credentials and manifests that the nodes lack, as
// kubepki init --out --manifests does, and returns its warnings. A worker is
// left without its kubelet.conf: it joins by a bootstrap token, as a real one
// does. What is there stays.
func (f Folder) CreateCredentials(ctx context.Context, c *catalog.Cluster) (warnings []string, err error) {
	plan, err := provision.Plan(provision.Options{Cluster: c, Dir: f.Nodes(), PerNode: true, Manifests: true, Now: time.Now()})
	if err != nil {
		return nil, err
	}
	if err := plan.Apply(ctx, nil); err != nil {
		return nil, err
	}
	for _, w := range c.Workers {
		if err := f.forgetKubeconfig(w.Name); err != nil {
			return nil, fmt.Errorf("node %s: %w", w.Name, err)
		}
	}
	return plan.Warnings, nil
}

// forgetKubeconfig removes the kubelet.conf of a node that has not joined.
func (f Folder) forgetKubeconfig(node string) error {
	_, err := os.Lstat(filepath.Join(f.Root(node), "var/lib/kubelet/pki/kubelet-client-current.pem"))
	if err == nil {
		return nil // this is the one that the kubelet wrote
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Remove(filepath.Join(f.Root(node), "etc/kubernetes/kubelet.conf"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
