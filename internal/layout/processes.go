package layout

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// process is a running component.
type process struct {
	pid         int
	name        string
	program     string   // as it was called
	words       []string // after the program
	environment map[string]string
	// apart tells that it runs in a container: its paths are not the node's.
	apart bool
}

// otherFolders are those of distributions that start components as processes of
// their own, with flags that no unit has: these are theirs to read.
var otherFolders = []string{"/var/lib/k0s/", "/var/lib/rancher/", "/var/snap/microk8s/", "/snap/microk8s/"}

// elsewhere tells whether a process is of such a distribution.
func (p *process) elsewhere() bool {
	return slices.ContainsFunc(append([]string{p.program}, p.words...), func(w string) bool {
		return slices.ContainsFunc(otherFolders, func(folder string) bool { return strings.Contains(w, folder) })
	})
}

// maxCommand bounds the bytes of a command line or environment that are read.
const maxCommand = 1 << 20

// processCache is what /proc showed, for all layouts of a node.
type processCache struct {
	folder string // that is /proc; empty: not looked at
	read   bool
	all    []process
}

// processes reads the command lines of the components that run, in the order of
// their numbers. What ends meanwhile, or may not be seen, is passed over.
func (r *nodeReader) processes() []process {
	if r.units.running.folder == "" || r.units.running.read {
		return r.units.running.all
	}
	r.units.running.read = true
	entries, err := os.ReadDir(r.units.running.folder)
	if err != nil {
		return nil
	}
	own := namespaces(filepath.Join(r.units.running.folder, "self"))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		folder := filepath.Join(r.units.running.folder, e.Name())
		line, err := readSome(filepath.Join(folder, "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		command := unitCommand{words: strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")}
		name, words := command.process()
		if name == "" {
			continue
		}
		p := process{pid: pid, name: name, program: command.words[0], words: words, apart: inContainer(folder, own)}
		if variables, err := readSome(filepath.Join(folder, "environ")); err == nil {
			p.environment = map[string]string{}
			for v := range strings.SplitSeq(string(variables), "\x00") {
				if name, value, ok := strings.Cut(v, "="); ok {
					p.environment[name] = value
				}
			}
		}
		r.units.running.all = append(r.units.running.all, p)
	}
	slices.SortFunc(r.units.running.all, func(a, b process) int { return a.pid - b.pid })
	return r.units.running.all
}

// process finds the component that a process is: its program, or the second word
// of hyperkube. A shell or launcher that started one is none itself.
func (c unitCommand) process() (string, []string) {
	if len(c.words) == 0 || isShell(c.words[0]) || isLauncher(c.words[0]) {
		return "", nil
	}
	return c.component(nil)
}

func readSome(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxCommand))
}

// namespaces are those of a process in which paths and users are what they are.
func namespaces(folder string) string {
	mounts, err := os.Readlink(filepath.Join(folder, "ns", "mnt"))
	if err != nil {
		return ""
	}
	users, _ := os.Readlink(filepath.Join(folder, "ns", "user"))
	return mounts + users
}

// inContainer tells whether a process sees another file system than we: by its
// namespaces, or, where these may not be seen, by the names of its control groups.
func inContainer(folder, own string) bool {
	if its := namespaces(folder); its != "" && own != "" {
		return its != own
	}
	groups, _ := readSome(filepath.Join(folder, "cgroup"))
	return slices.ContainsFunc([]string{"kubepods", "docker", "containerd", "crio", "libpod", "lxc"}, func(s string) bool { return bytes.Contains(groups, []byte(s)) })
}

// component is the process as a component of the node.
func (r *nodeReader) processComponent(p process) trust.Component {
	at := r.place(path.Join("/proc", strconv.Itoa(p.pid), "cmdline"))
	c := trust.Component{Node: r.node.Name, Name: p.name, Source: at, Flags: parseFlags(p.words), Settings: map[string]trust.Place{}}
	if p.name == catalog.Etcd {
		for _, variable := range slices.Sorted(maps.Keys(p.environment)) {
			if flag, ok := etcdFlag(variable); ok && c.Flags[flag] == nil && p.environment[variable] != "" {
				c.Flags[flag] = []string{p.environment[variable]}
				c.Settings[flag] = r.place(path.Join("/proc", strconv.Itoa(p.pid), "environ")).In(variable)
			}
		}
	}
	return c
}

// ownProcesses are the components that run outside of containers, the first of
// each name.
func (r *nodeReader) ownProcesses() []trust.Component {
	var all []trust.Component
	for _, p := range r.processes() {
		known := slices.ContainsFunc(all, func(c trust.Component) bool { return c.Name == p.name })
		if !p.apart && !known && !p.elsewhere() {
			all = append(all, r.processComponent(p))
		}
	}
	return all
}

// addProcesses notes what runs of the components that files configure, and adds
// those that run and that no file configures.
func (r *nodeReader) addProcesses() {
	var strangers []process
	for _, p := range r.processes() {
		if p.elsewhere() {
			continue
		}
		i := slices.IndexFunc(r.node.Components, func(c trust.Component) bool { return c.Name == p.name })
		running := r.processComponent(p)
		switch {
		case i >= 0 && r.node.Components[i].Source != running.Source:
			written := r.written(r.node.Components[i])
			r.node.Processes = append(r.node.Processes, trust.Process{
				PID: p.pid, Component: p.name, Flags: running.Flags, Environment: p.environment != nil, Written: written,
				Apart: p.apart, OtherFiles: r.otherFiles(p, running, r.node.Components[i], written),
			})
		case i < 0 && !p.apart:
			r.node.Components = append(r.node.Components, running)
		case i < 0:
			strangers = append(strangers, p)
		}
	}
	if len(strangers) == 0 {
		return
	}
	var names []string
	for _, p := range strangers {
		names = append(names, p.name)
	}
	root := path.Join("/proc", strconv.Itoa(strangers[0].pid))
	r.notSeen(root, strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", ")+" run in containers that are none of this node's static pods; kubepki verify --root "+root+"/root looks at what the first of them sees")
}

// written are the flags with which a component would be started now. A kubelet's
// are those of its unit alone, for its other settings are on no command line.
func (r *nodeReader) written(c trust.Component) map[string][]string {
	// As the unit has them, for a configuration file may have changed them since.
	unit, ok := find(r.unitComponents(), func(u trust.Component) bool {
		return u.Name == c.Name && len(u.Flags) > 0 && (u.Source == c.Source || c.Name == catalog.Kubelet)
	})
	switch {
	case ok:
		return unit.Flags
	case c.Source.IsZero(), c.Name == catalog.Kubelet:
		return nil
	}
	// As the manifest has them: the paths of a container need not be the node's.
	content, err := readFile(r.dir, r.links, c.Source.Path)
	if err != nil {
		return nil
	}
	m, err := ParseManifest(c.Source, content.Data)
	if err != nil {
		return nil
	}
	return m.Flags
}

// otherFiles are the flags whose file the process sees another one of than the
// node has at that path: a container to which the file alone was mounted keeps the
// one that was there when it started. What may not be looked at is passed over.
func (r *nodeReader) otherFiles(p process, running, c trust.Component, written map[string][]string) []string {
	if !p.apart {
		return nil
	}
	var flags []string
	root := filepath.Join(r.units.running.folder, strconv.Itoa(p.pid), "root")
	for _, u := range catalog.FlagUses(p.name) {
		at, _ := running.Flag(u.Flag)
		host, ok := c.Flag(u.Flag)
		if !ok || !path.IsAbs(at) || !path.IsAbs(host) || !slices.Equal(running.Flags[u.Flag], written[u.Flag]) {
			continue
		}
		if theirs, err := os.Stat(filepath.Join(root, at)); err != nil || !theirs.Mode().IsRegular() {
			continue
		}
		theirs, err := readSome(filepath.Join(root, at))
		ours, err2 := readFile(r.dir, r.links, host)
		if err == nil && err2 == nil && !bytes.Equal(theirs, ours.Data) {
			flags = append(flags, u.Flag)
		}
	}
	return flags
}
