package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
)

// separateFile gives a flag a file of its own: what other components read stays as it
// is.
type separateFile struct {
	path     string // of the new file, beside the old one
	manifest string // of the static pod, as on the node
	old, new []byte // the manifest's text
	exists   bool   // the file is there already with what it shall hold: an earlier run made it
}

// ownName is the file that a component's flag names when it has one of its own. What
// kube-apiserver has a flag of the same name for has the component before it: they
// stand in one folder.
func ownName(component, flag string) string {
	name := strings.TrimSuffix(flag, "-file") + ".crt"
	shared := slices.ContainsFunc(catalog.FlagUses(catalog.APIServer), func(u catalog.FlagUse) bool { return u.Flag == flag })
	if component != catalog.APIServer && shared {
		return component + "-" + name
	}
	return name
}

// kubeadmExtraArgs is where kubeadm's ClusterConfiguration has a component's flags.
var kubeadmExtraArgs = map[string]string{
	catalog.APIServer:         "apiServer.extraArgs",
	catalog.ControllerManager: "controllerManager.extraArgs",
	catalog.Scheduler:         "scheduler.extraArgs",
	catalog.Etcd:              "etcd.local.extraArgs",
}

// planSeparate tells how the flag of a bundle gets a file of its own; nil where it
// has one already. after is what that file shall hold.
func planSeparate(b *trustBundle, after *bundle.Text) (*separateFile, error) {
	if path.Base(b.setting.Anchors.Path) == ownName(b.setting.Component, b.setting.Name) {
		return nil, nil
	}
	inKubeconfig := strings.HasPrefix(path.Base(b.setting.Name), "certificate-authority")
	if b.setting.Source.IsZero() || b.setting.Source.Field != "" || b.setting.Component == "kubelet" || inKubeconfig {
		return nil, advise(fmt.Errorf("%s: no manifest of a static pod sets --%s, so that it cannot be changed here", b.where(), b.setting.Name),
			"copy %s to a file of its own, name that in --%s, and run the same command without --separate", b.file.Path, b.setting.Name)
	}
	s := &separateFile{path: path.Join(path.Dir(b.setting.Anchors.Path), ownName(b.setting.Component, b.setting.Name)), manifest: b.setting.Source.Path}
	content, err := layout.ReadFile(b.dir, s.manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.setting.Source, err)
	}
	s.old = content.Data
	if s.new, err = layout.SetFile(content.Data, b.setting.Name, b.setting.Anchors.Path, s.path); err != nil {
		return nil, fmt.Errorf("%s: %w", b.setting.Source, err)
	}
	there, err := layout.ReadFile(b.dir, s.path)
	var failed *layout.ReadError
	switch {
	case errors.As(err, &failed) && failed.State == "missing" && !failed.Dangling():
	case err != nil:
		return nil, err
	case bytes.Equal(there.Data, after.Bytes()):
		s.exists = true
	default:
		return nil, advise(fmt.Errorf("%s is there already and holds something else", s.path), "name it in --%s if it is meant to be that; else move it away, where kubepki trust list shows no component that reads it", b.setting.Name)
	}
	return s, nil
}

// applyFiles changes the files of all nodes, each node's in one transaction: nothing
// is changed unless all could be staged. With dryRun it stops before anything is
// opened for writing.
func applyFiles(p *trustPlan, dryRun bool) error {
	if dryRun {
		return nil
	}
	staged, err := stageFiles(p)
	defer func() {
		for _, r := range staged {
			_ = r.Tx.Rollback() // after Commit it does nothing
		}
	}()
	if err != nil {
		return err
	}
	return apply.Commit(staged)
}

// stageFiles prepares the changes of all nodes. Those of an error must be rolled back
// too.
func stageFiles(p *trustPlan) ([]apply.Staged, error) {
	var staged []apply.Staged
	for _, c := range p.changes {
		if !c.changes() && c.separate == nil {
			continue
		}
		i := slices.IndexFunc(staged, func(r apply.Staged) bool { return r.Dir == c.dir })
		if i < 0 {
			tx, err := layout.Begin(c.dir)
			if err != nil {
				return staged, err
			}
			i, staged = len(staged), append(staged, apply.Staged{Dir: c.dir, Tx: tx})
		}
		if err := c.stage(staged[i].Tx); err != nil {
			return staged, err
		}
	}
	return staged, nil
}

// stage puts a change into a transaction.
func (c *trustChange) stage(tx *layout.Transaction) error {
	if c.separate == nil {
		return tx.Replace(c.file.Path, c.text.Bytes(), c.after.Bytes())
	}
	if !c.separate.exists {
		if err := tx.Write(c.separate.path, c.after.Bytes(), fs.FileMode(0o644)); err != nil {
			return err
		}
	}
	return tx.Replace(c.separate.manifest, c.separate.old, c.separate.new)
}
