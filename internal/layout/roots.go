package layout

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// IsRoot tells whether a folder is the root of a node in a known layout.
func IsRoot(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	r := newNodeReader(root, "")
	return slices.ContainsFunc(kinds, func(k kind) bool { return k.found(r) })
}

// IsFolder tells whether a folder stands at an absolute path of the node below
// root. What cannot be looked at is none.
func IsFolder(root, nodePath string) bool {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := newNodeReader(dir, "").stat(nodePath)
	return err == nil && info != nil && info.IsDir()
}

// NodeRoots lists the names of the folders below dir that are roots of nodes,
// sorted, those called in except left out. The error is of reading dir.
func NodeRoots(dir string, except ...string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for nodes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(except, e.Name()) && IsRoot(filepath.Join(dir, e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
