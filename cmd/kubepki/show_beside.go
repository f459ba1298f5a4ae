package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// What init --out puts beside the node roots is no node: the kubeconfigs of
// users, and authorities whose keys no node may hold.

// readUsers returns the kubeconfigs of users below a folder of node roots as
// facts of their own, nil when there are none.
func readUsers(dir string) *trust.Node {
	entries, err := os.ReadDir(filepath.Join(dir, catalog.UsersDir))
	if err != nil || layout.IsRoot(dir) {
		return nil
	}
	users := &trust.Node{Name: catalog.UsersDir}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".conf" {
			continue
		}
		file := filepath.Join(dir, catalog.UsersDir, e.Name())
		at := trust.Place{Node: catalog.UsersDir, Path: "/" + e.Name()}
		data, err := readInput(streams{}, file)
		if err != nil {
			users.Kubeconfigs = append(users.Kubeconfigs, trust.Kubeconfig{Place: at, State: trust.Unreadable, Reason: strings.TrimPrefix(err.Error(), file+": ")})
			continue
		}
		k, materials, _ := layout.ParseKubeconfig(at, data)
		users.Kubeconfigs = append(users.Kubeconfigs, k)
		users.Materials = append(users.Materials, materials...)
	}
	return users
}

// addAuthorities adds to a graph the authorities beside the node roots.
func addAuthorities(g *trust.Graph, dir string) {
	for _, a := range authoritiesBeside(dir) {
		at := trust.Place{Node: catalog.AuthoritiesDir, Path: "/" + filepath.Base(a.path)}
		key := trust.Place{Node: catalog.AuthoritiesDir, Path: "/" + filepath.Base(a.keyPath)}
		g.Materials[at] = a.certificate
		if a.key != nil {
			g.Materials[key] = &trust.Material{Place: key, Role: trust.RoleKey, State: trust.Present, HasPrivateKey: true}
		}
		g.Authorities = append(g.Authorities, trust.Authority{Name: a.name, Node: catalog.AuthoritiesDir, Certificate: at, Key: key})
	}
}

func authoritiesBeside(dir string) []folderAuthority {
	if layout.IsRoot(dir) {
		return nil
	}
	beside, err := readBare(filepath.Join(dir, catalog.AuthoritiesDir))
	if err != nil {
		return nil // there is no such folder
	}
	return beside.authorities
}
