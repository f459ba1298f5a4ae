package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// place says where the lab is.
type place struct{ dir, programs string }

func (p *place) add(flags *pflag.FlagSet) {
	flags.StringVar(&p.dir, "dir", "", "folder of the lab (default $KUBEPKI_LAB_DIR, else kubepki-lab in $XDG_STATE_HOME or ~/.local/state)")
	flags.StringVar(&p.programs, "programs", "", "folder of the real components, as lab/build.sh fills it (default: that of kubepki-lab)")
}

// folder is the folder of the lab.
func (p *place) folder() (cluster.Folder, error) {
	dir := p.dir
	if dir == "" {
		dir = os.Getenv("KUBEPKI_LAB_DIR")
	}
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", usagef("--dir: %v", err)
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "kubepki-lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// The lab knows its folder by one name, and a link is not what is removed.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return cluster.Folder(dir), nil
}

// programsDir is the folder of the real components.
func (p *place) programsDir() (string, error) {
	dir := p.programs
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubeadm"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", hintedError{fmt.Errorf("the real components are not all in %s: %w", dir, err), "build them with lab/build.sh, or say where they are with --programs"}
		}
	}
	return dir, nil
}

// both are the folder of the lab and that of the real components.
func (p *place) both() (folder cluster.Folder, programs string, err error) {
	if folder, err = p.folder(); err != nil {
		return "", "", err
	}
	programs, err = p.programsDir()
	return folder, programs, err
}

// errNotUp tells that the lab does not run.
var errNotUp = errors.New("the lab is not up")

// runs tells whether the lab of a folder runs: its processes hold the lock.
func runs(f cluster.Folder) (bool, error) {
	lock, err := os.Open(f.Lock())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// client returns a client of the lab, which must be up.
func (p *place) client() (cluster.Folder, *supervisor.Client, error) {
	folder, err := p.folder()
	if err != nil {
		return "", nil, err
	}
	up, err := runs(folder)
	if err != nil {
		return "", nil, err
	}
	if !up {
		return "", nil, hintedError{fmt.Errorf("%s: %w", folder, errNotUp), "start it with kubepki-lab up, or name its folder with --dir"}
	}
	client, err := supervisor.NewClient(folder)
	return folder, client, err
}

// withClient calls f with a client of the lab.
func (p *place) withClient(ctx context.Context, f func(context.Context, *supervisor.Client) error) error {
	_, client, err := p.client()
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, client), client.Close())
}
