package main

import (
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/trust"
)

// lifeSigns are files that the components of a node, and its keeper of the time, write
// while they run: when they were last written the node was alive. A folder stands for
// what is in it.
var lifeSigns = []string{
	"/var/lib/etcd/member/wal", "/var/lib/etcd/member/snap", catalog.KubeletDir, catalog.KubeletDir + "/pki",
	"/var/lib/systemd/timesync/clock", "/var/lib/chrony/drift", "/var/log/pods",
}

// manyFiles bounds how many names of a folder are looked at.
const manyFiles = 10_000

// clockOf gathers what speaks for and against a time: when the files of the nodes were
// written, and when their certificates begin.
func clockOf(n *trustNodes, now time.Time) recovery.Clock {
	c := recovery.Clock{Now: now, Clues: recovery.CluesOf(n.Graph), Unsynchronised: unsynchronised()}
	for i := range n.Nodes.Nodes {
		node := &n.Nodes.Nodes[i]
		dir, ok := n.Dirs[node.Name]
		if !ok {
			continue
		}
		names := map[string]bool{}
		for _, m := range node.Materials {
			names[m.Place.Path] = !m.Place.InAPI()
		}
		for _, k := range node.Kubeconfigs {
			names[k.Place.Path] = true
		}
		for _, folder := range lifeSigns {
			names[folder] = true
			for _, name := range namesIn(filepath.Join(dir, folder)) {
				names[path.Join(folder, name)] = true
			}
		}
		for name, file := range names {
			if info, err := os.Lstat(filepath.Join(dir, name)); file && err == nil && info.ModTime().Unix() > 0 {
				c.Clues = append(c.Clues, recovery.Clue{Time: info.ModTime(), Sign: recovery.Written, Place: trust.Place{Node: node.Name, Path: name}})
			}
		}
	}
	return c
}

// namesIn are the names in a folder, none where it cannot be read.
func namesIn(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(manyFiles) // a part of them tells as much
	return names
}
