package layout

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// pod has the fields of k8s.io/api/core/v1 Pod that say what a static pod runs.
type pod struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Containers []container `json:"containers"`
		Volumes    []volume    `json:"volumes"`
	} `json:"spec"`
}

type container struct {
	Name    string        `json:"name"`
	Image   string        `json:"image"`
	Command []string      `json:"command"`
	Args    []string      `json:"args"`
	Env     []environment `json:"env"`

	VolumeMounts []struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
		SubPath   string `json:"subPath"`
	} `json:"volumeMounts"`
}

type volume struct {
	Name     string `json:"name"`
	HostPath *struct {
		Path string `json:"path"`
	} `json:"hostPath"`
}

type environment struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// ValueFrom is set where the value is known when the Pod runs alone, as its
	// node's address is.
	ValueFrom *struct{} `json:"valueFrom"`
}

// programs are the components that run as static pods.
var programs = []string{catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Etcd}

// ErrNoComponent tells that a Pod runs none of kube-apiserver,
// kube-controller-manager, kube-scheduler and etcd.
var ErrNoComponent = errors.New("no container of the Pod runs a component of the control plane")

// ParseManifest reads the manifest of a static pod (YAML or JSON) and returns
// the component that it runs, with the flags that the program is started with.
// The program is known by the base name of a word of the command, also within
// a shell's -c text; a container without a command is known by its own or the
// Pod's name. $(NAME) is replaced from the container's environment, as the
// kubelet does, and etcd's ETCD_* variables count where the flag is not given
// (etcd server/etcdmain/config.go). A Pod that runs no component is
// [ErrNoComponent]. The node of the component is the place's.
func ParseManifest(place trust.Place, data []byte) (trust.Component, error) {
	c, _, err := parseManifest(place, data)
	return c, err
}

// parseManifest is ParseManifest, and tells where the container's files are.
func parseManifest(place trust.Place, data []byte) (trust.Component, mounts, error) {
	c := trust.Component{Node: place.Node, Source: place}
	if len(data) > MaxFile {
		return c, nil, errors.New("larger than 1 MiB: not a manifest")
	}
	var p pod
	if err := decodeYAML(data, &p); err != nil {
		return c, nil, err
	}
	return p.component(place)
}

func (p *pod) component(place trust.Place) (trust.Component, mounts, error) {
	c := trust.Component{Node: place.Node, Source: place}
	if p.Kind != "Pod" {
		return c, nil, fmt.Errorf("kind: is not Pod")
	}
	for _, container := range p.Spec.Containers {
		name, words := container.program()
		if name == "" && len(container.Command) == 0 {
			name, words = container.named(p.Metadata.Name)
		}
		if name == "" {
			continue
		}
		c.Name, c.Flags = name, parseFlags(words)
		if name == catalog.Etcd {
			container.addEtcdEnvironment(c.Flags)
		}
		return c, p.mountsOf(&container), nil
	}
	return c, nil, ErrNoComponent
}

// ManifestVersion returns the version of the component that a static pod runs, as
// v1.37.2, from the tag of its image; empty where that tells none, as a digest alone
// does.
func ManifestVersion(data []byte) string {
	var p pod
	if len(data) > MaxFile || decodeYAML(data, &p) != nil {
		return ""
	}
	return p.version()
}

func (p *pod) version() string {
	for _, c := range p.Spec.Containers {
		if name, _ := c.program(); name == "" {
			continue
		}
		image, _, _ := strings.Cut(c.Image, "@")
		_, tag, _ := strings.Cut(path.Base(image), ":")
		if len(tag) > 1 && strings.Trim(strings.TrimPrefix(tag, "v")[:1], "0123456789") == "" {
			return tag
		}
	}
	return ""
}

// program finds a component's program among the words of the command and
// returns the words after it.
func (c *container) program() (string, []string) {
	words := c.expanded()
	if name, rest := findProgram(words, 2); name != "" {
		return name, rest
	}
	if i := slices.Index(words, "-c"); i > 0 || len(words) > 2 && isShell(words[0]) {
		for _, text := range words[1:] {
			for _, command := range splitShell(text) {
				if name, rest := findProgram(command, len(command)); name != "" {
					return name, rest
				}
			}
		}
	}
	return "", nil
}

// findProgram looks at the first words for a component's base name: the second
// word is the program where one binary holds several (hyperkube).
func findProgram(words []string, first int) (string, []string) {
	for i, w := range words[:min(first, len(words))] {
		if base := path.Base(w); slices.Contains(programs, base) {
			return base, words[i+1:]
		}
	}
	return "", nil
}

func isShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "ash", "dash"}, path.Base(program))
}

// named is for a container that runs its image's own program.
func (c *container) named(podName string) (string, []string) {
	for _, name := range []string{c.Name, podName} {
		if slices.Contains(programs, name) {
			return name, c.expanded()
		}
	}
	return "", nil
}

// expanded returns command and args with $(NAME) replaced where the value
// stands in the manifest. Of a list, what is known only when the Pod runs is left
// out, and so is a flag of which nothing else remains: it is not known, rather than
// $(NAME).
func (c *container) expanded() []string {
	var pairs, unknown []string
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			unknown = append(unknown, "$("+e.Name+")")
		} else {
			pairs = append(pairs, "$("+e.Name+")", e.Value)
		}
	}
	replacer := strings.NewReplacer(pairs...)
	var words []string
	for _, w := range slices.Concat(c.Command, c.Args) {
		if w, known := withoutUnknown(replacer.Replace(w), unknown); known {
			words = append(words, w)
		}
	}
	return words
}

// withoutUnknown takes the elements of a flag's list out that hold one of some
// texts, and tells whether anything of it remains. Only flags have lists.
func withoutUnknown(word string, unknown []string) (string, bool) {
	holds := func(s string) bool {
		return slices.ContainsFunc(unknown, func(u string) bool { return strings.Contains(s, u) })
	}
	name, value, isFlag := strings.Cut(word, "=")
	if !holds(word) || !isFlag || !strings.HasPrefix(word, "-") {
		return word, true
	}
	elements := slices.DeleteFunc(strings.Split(value, ","), holds)
	return name + "=" + strings.Join(elements, ","), len(elements) > 0
}

func (c *container) addEtcdEnvironment(flags map[string][]string) {
	for _, e := range c.Env {
		name, ok := strings.CutPrefix(e.Name, "ETCD_")
		if !ok || e.Value == "" {
			continue
		}
		flag := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if _, set := flags[flag]; !set {
			flags[flag] = []string{e.Value}
		}
	}
}

// parseFlags reads words as pflag and etcd's flag package do: --flag=value,
// --flag value, and one dash as well as two. A flag without a value is "true".
// Words that belong to no flag are passed over, and "--" ends the flags.
func parseFlags(words []string) map[string][]string {
	flags := map[string][]string{}
	for _, f := range flagsIn(words) {
		flags[f.name] = append(flags[f.name], f.value)
	}
	return flags
}

// flagWord is a flag as a command line has it.
type flagWord struct {
	name, value string
	word        string // the word with the dashes
}

func flagsIn(words []string) []flagWord {
	var flags []flagWord
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "--" {
			break
		}
		name := strings.TrimPrefix(strings.TrimPrefix(w, "-"), "-")
		if name == w || name == "" {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given {
			value = "true"
			if i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
				i++
				value = words[i]
			}
		}
		// Kubernetes takes _ for - in flags (k8s.io/component-base/cli/flag).
		name = strings.ReplaceAll(name, "_", "-")
		flags = append(flags, flagWord{name, value, w})
	}
	return flags
}
