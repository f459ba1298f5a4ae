package layout

import (
	"fmt"
	"os"
	"path"
)

// Follow resolves an absolute path of the node below its root and returns the
// name to open there: relative to the root and free of symbolic links as far as
// it exists. An absolute link starts again at the root, so nothing leads
// outside. Missing names the components at the end that do not exist, in order;
// they are part of the name.
func Follow(root *os.Root, nodePath string) (name string, missing []string, err error) {
	if err := checkNodePath(nodePath); err != nil {
		return "", nil, err
	}
	at, err := resolve(root, nodePath)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", nodePath, err)
	}
	return path.Join(at.name, path.Join(at.absent...)), at.absent, nil
}
