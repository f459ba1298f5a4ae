package layout

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// LayoutUsers is the layout of the folder beside the node roots that holds the
// kubeconfigs of users.
const LayoutUsers = catalog.LayoutUsers

// UsersRoot is the folder of users' kubeconfigs of a cluster folder. It stands for the
// root of a node, so that what is replaced in it is kept in it.
func UsersRoot(dir string) string { return filepath.Join(dir, catalog.UsersDir) }

// ReadUsers reads the kubeconfigs of users that stand beside the node roots of
// a cluster folder, as a node of its own; ok is false when there are none.
func ReadUsers(dir string) (node trust.Node, keys Keyring, ok bool) {
	root, err := os.OpenRoot(UsersRoot(dir))
	if err != nil {
		return trust.Node{}, nil, false
	}
	defer root.Close()
	r := newNodeReader(root, catalog.UsersDir)
	r.node.Layout = LayoutUsers
	r.useKubeconfigs("/")
	if len(r.uses) == 0 {
		return trust.Node{}, nil, false
	}
	r.readFiles()
	return r.node, r.keys, true
}

// useKubeconfigs adds the kubeconfigs of a folder to what is read.
func (r *nodeReader) useKubeconfigs(folder string) {
	names, err := r.list(folder)
	if err != nil {
		return // a folder that init makes only where there are users
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".conf") {
			r.use(catalog.FileUse{Path: path.Join(folder, n), Role: catalog.RoleKubeconfig, Optional: true})
		}
	}
}
