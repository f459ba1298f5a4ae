// Package deploy holds the manifests and units with which kubepki controller and
// kubepki agent are installed.
package deploy

import "embed"

// Files are the manifests of this folder, in YAML, and the units.
//
//go:embed *.yaml agent
var Files embed.FS
