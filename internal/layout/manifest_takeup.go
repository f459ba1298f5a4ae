package layout

import (
	"path"

	"github.com/kubepki/kubepki/internal/trust"
)

// Takeup is what the manifest of a static pod says about when its program takes up
// changes of files. The zero value says nothing. It is safe for concurrent use.
type Takeup struct {
	Version string // as [ManifestVersion]

	pod     podMounts
	running *podContainer // nil where no container runs the program
}

// ParseTakeup parses a manifest. One that does not parse says nothing.
func ParseTakeup(manifest []byte) *Takeup {
	t := &Takeup{}
	if len(manifest) > MaxFile {
		return t
	}
	j, err := yamlToJSON(manifest)
	var p pod
	if err != nil || decodeJSON(j, &p) != nil {
		return t
	}
	t.Version = p.version()
	component, _, err := p.component(trust.Place{})
	if err != nil || decodeJSON(j, &t.pod) != nil {
		return t
	}
	t.running = t.pod.running(component.Name)
	return t
}

// MountsAlone tells whether the program of a static pod sees a file by a mount of
// that file alone. Such a mount stays with what it was made of: the program sees no
// file that takes the other's name before its container is started anew.
func (t *Takeup) MountsAlone(file string) bool {
	if t.running == nil {
		return false
	}
	at, _ := t.pod.mountOf(t.running, path.Clean(file))
	return at == path.Clean(file)
}
