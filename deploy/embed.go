// Package deploy holds the manifests with which kubepki controller is installed.
package deploy

import "embed"

// Files are the manifests of this folder, in YAML.
//
//go:embed *.yaml
var Files embed.FS
