package main

import (
	"path/filepath"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// addAuthorities adds to a graph the authorities that init --out puts beside
// the node roots, for no node may hold their keys.
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
