package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Folder is the folder of a lab, by its absolute path. Everything that the lab
// keeps is below it.
type Folder string

// Nodes is the folder that holds one root per node, as kubepki init --out makes it.
func (f Folder) Nodes() string { return filepath.Join(string(f), "nodes") }

// Root is the folder that is a node's "/".
func (f Folder) Root(node string) string { return filepath.Join(f.Nodes(), node) }

// Logs is the folder of the logs, one per component: NODE-COMPONENT.log.
func (f Folder) Logs() string { return filepath.Join(string(f), "logs") }

// SupervisorLog is the log of the process that runs the lab.
func (f Folder) SupervisorLog() string { return filepath.Join(f.Logs(), "supervisor.log") }

// Servers is the folder of the credentials of what runs in pods.
func (f Folder) Servers() string { return filepath.Join(string(f), "servers") }

// Run is the folder of what is there only while the lab runs.
func (f Folder) Run() string { return filepath.Join(string(f), "run") }

// Control is the unix socket on which the running lab is asked and told. Its path
// may be too long for a socket's address: see the control package.
func (f Folder) Control() string { return filepath.Join(f.Run(), "control.sock") }

// Network is the file by which other programs enter a node's network.
func (f Folder) Network(node string) string { return filepath.Join(f.Run(), node+".net") }

// Lock is locked (flock) as long as the lab runs, by the lab's own processes, so
// that it is free again however they end.
func (f Folder) Lock() string { return filepath.Join(string(f), "lock") }

// Kubeconfig is the administrator's kubeconfig for use outside of the lab: its
// calls go through a proxy on the machine's loopback.
func (f Folder) Kubeconfig() string { return filepath.Join(string(f), "admin.conf") }

// AdminConf is the administrator's kubeconfig for use inside the lab's network.
func (f Folder) AdminConf(c *catalog.Cluster) string {
	return filepath.Join(f.Root(c.ControlPlanes[0].Name), "etc/kubernetes/admin.conf")
}

// SuperAdminConf is AdminConf without any need of an RBAC rule.
func (f Folder) SuperAdminConf(c *catalog.Cluster) string {
	return filepath.Join(f.Root(c.ControlPlanes[0].Name), "etc/kubernetes/super-admin.conf")
}

func (f Folder) wantedFile() string { return filepath.Join(string(f), "lab.json") }

// ErrNoLab tells that no lab was ever made in the folder.
var ErrNoLab = errors.New("no lab in this folder")

// Wanted returns what the lab in the folder was made from, or [ErrNoLab].
func (f Folder) Wanted() (Wanted, error) {
	data, err := os.ReadFile(f.wantedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Wanted{}, fmt.Errorf("%s: %w", f, ErrNoLab)
	}
	if err != nil {
		return Wanted{}, err
	}
	var w Wanted
	if err := json.Unmarshal(data, &w); err != nil {
		return Wanted{}, fmt.Errorf("%s: %w: remove the folder to begin anew", f.wantedFile(), err)
	}
	return w, nil
}

// setWanted writes down what the lab is made from.
func (f Folder) setWanted(w Wanted) error {
	data, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(f.wantedFile(), append(data, '\n'), 0o600)
}

// ErrForeign tells that a folder holds something that is no lab.
var ErrForeign = errors.New("the folder is not empty, and holds no lab")

// Claim makes the folder and writes down what the lab is made from, before
// anything else is there. A folder that holds something else is refused with
// [ErrForeign]: what is in a lab's folder can be removed with it.
func (f Folder) Claim(w Wanted) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s: %w", f, ErrForeign)
	}
	return f.setWanted(w)
}

// Remove removes the lab: what it has made, and then the folder if nothing else
// is in it. There must be one, and it must not run.
func (f Folder) Remove() error {
	if _, err := f.Wanted(); err != nil {
		return err
	}
	// What says that there is a lab goes last, so that a second run completes.
	for _, path := range []string{f.Nodes(), f.Servers(), f.Logs(), f.Run(), f.Kubeconfig(), f.Lock(), f.wantedFile()} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(string(f))
	if err != nil || len(entries) > 0 {
		return err
	}
	return os.Remove(string(f))
}

// Make makes the folders that are not there.
func (f Folder) Make() error {
	for _, dir := range []string{f.Nodes(), f.Logs(), f.Run()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}
