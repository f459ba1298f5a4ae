package layout

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// EditError tells that a flag of a manifest is not changed, and why.
type EditError struct{ Flag, Reason string }

// Error names the flag.
func (e *EditError) Error() string { return "--" + e.Flag + " " + e.Reason }

// Hint says what to do.
func (e *EditError) Hint() string { return "set --" + e.Flag + " by hand" }

// SetFile changes the path that a flag of a static pod's program names, from old
// to another file in the same folder, and nothing else: comments, order and form
// of the text stay. The flag must stand in it once as --flag=old, and the pod must
// mount the folder at the path that it has on the node, so that the program sees
// the new file; else the error is an [*EditError].
func SetFile(manifest []byte, flag, old, file string) ([]byte, error) {
	before, err := ParseManifest(trust.Place{}, manifest)
	if err != nil {
		return nil, err
	}
	if v, _ := before.Flag(flag); v != old || len(before.Flags[flag]) != 1 || path.Dir(old) != path.Dir(file) {
		return nil, &EditError{flag, "does not name " + old + ", once"}
	}
	if err := checkMounted(manifest, before.Name, flag, old); err != nil {
		return nil, err
	}
	var edited [][]byte
	word := []byte("--" + flag + "=" + old)
	for offset := 0; ; {
		i := bytes.Index(manifest[offset:], word)
		if i < 0 {
			break
		}
		at := offset + i + len(word) - len(old)
		offset += i + len(word)
		text := append(append(bytes.Clone(manifest[:at]), file...), manifest[at+len(old):]...)
		if onlyDiffers(manifest, text, &before, flag, file) {
			edited = append(edited, text)
		}
	}
	if len(edited) != 1 {
		return nil, &EditError{flag, fmt.Sprintf("does not stand in the manifest once as --%s=%s", flag, old)}
	}
	return edited[0], nil
}

// onlyDiffers tells whether two manifests start the program with the same flags
// but one, and have as much else in common: a comment that looks like the flag
// changes none.
func onlyDiffers(before, after []byte, was *trust.Component, flag, want string) bool {
	is, err := ParseManifest(trust.Place{}, after)
	if err != nil || is.Name != was.Name || len(is.Flags) != len(was.Flags) {
		return false
	}
	for name, values := range is.Flags {
		if name == flag && !reflect.DeepEqual(values, []string{want}) || name != flag && !reflect.DeepEqual(values, was.Flags[name]) {
			return false
		}
	}
	var a, b any
	if decodeYAML(before, &a) != nil || decodeYAML(after, &b) != nil {
		return false
	}
	return differences(a, b) == 1
}

// differences counts the scalars in which two documents of one form differ.
func differences(a, b any) int {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return 2
		}
		n := 0
		for k := range x {
			n += differences(x[k], y[k])
		}
		return n
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return 2
		}
		n := 0
		for i := range x {
			n += differences(x[i], y[i])
		}
		return n
	}
	if reflect.DeepEqual(a, b) {
		return 0
	}
	return 1
}

// podContainer is a container with what it mounts.
type podContainer struct {
	container
	VolumeMounts []struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
		SubPath   string `json:"subPath"`
		Expr      string `json:"subPathExpr"`
	} `json:"volumeMounts"`
}

// podMounts has the fields of a Pod that say which folders of the node it sees.
type podMounts struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Containers []podContainer `json:"containers"`
		Volumes    []struct {
			Name     string `json:"name"`
			HostPath *struct {
				Path string `json:"path"`
			} `json:"hostPath"`
		} `json:"volumes"`
	} `json:"spec"`
}

// checkMounted refuses a program that would not see another file beside one: its
// pod mounts that file alone, or the folder from elsewhere.
func checkMounted(manifest []byte, program, flag, file string) error {
	var p podMounts
	if err := decodeYAML(manifest, &p); err != nil {
		return err
	}
	c := p.running(program)
	if c == nil {
		return errors.New("no container runs " + program)
	}
	at, from := p.mountOf(c, file)
	switch {
	case at == "":
		return &EditError{flag, "names " + file + ", whose folder the pod does not mount"}
	case at == file:
		return &EditError{flag, "names " + file + ", which the pod mounts alone: it would not see a file beside it"}
	case from != at:
		return &EditError{flag, "names " + file + ", whose folder the pod mounts from another place"}
	}
	return nil
}

// MountsAlone is [Takeup.MountsAlone] of a manifest that is asked about one file.
func MountsAlone(manifest []byte, file string) bool { return ParseTakeup(manifest).MountsAlone(file) }

// running is the container that runs a program, nil where none does.
func (p *podMounts) running(program string) *podContainer {
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		name, _ := c.program()
		if name == "" && len(c.Command) == 0 {
			name, _ = c.named(p.Metadata.Name)
		}
		if name == program {
			return c
		}
	}
	return nil
}

// mountOf is the mount through which a container sees a file, and the place on the
// node that it is of; empty where it sees none, or where that is not known.
func (p *podMounts) mountOf(c *podContainer, file string) (at, from string) {
	hosts := map[string]string{}
	for _, v := range p.Spec.Volumes {
		if v.HostPath != nil {
			hosts[v.Name] = path.Clean(v.HostPath.Path)
		}
	}
	for _, m := range c.VolumeMounts {
		mount := path.Clean(m.MountPath)
		if (file == mount || strings.HasPrefix(file, strings.TrimSuffix(mount, "/")+"/")) && len(mount) > len(at) {
			at, from = mount, hosts[m.Name]
			if m.SubPath != "" || m.Expr != "" {
				from = ""
			}
		}
	}
	return at, from
}
