package layout

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// unitFolders are where systemd looks for units, those that win first
// (man systemd.unit, "unit file load path"). What control groups and generators
// put there runs no component.
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// packageFolders hold hundreds of units of packages: there only those are read
// whose name tells that they may run a part of a cluster.
var packageFolders = []string{"/usr/lib/systemd/system", "/lib/systemd/system"}

// partsOfClusters are what the name or text of a unit holds that runs one.
var partsOfClusters = []string{"kube", "etcd", "k3s", "rke2", "k0s", "k8s"}

// service is a unit that may run a part of a cluster.
type service struct {
	name string // with ".service"
	// at is the file that says what is started: the unit or a drop-in.
	at          string
	environment map[string]string
	from        map[string]string // variable → file that sets it
	commands    []unitCommand
	// files are environment files that the unit needs and that are not there.
	missing []string
	denied  []string
}

// services reads the units of the node once.
func (r *nodeReader) services() []service {
	if r.units.read {
		return r.units.all
	}
	r.units.read = true
	seen := map[string]bool{}
	listed := map[string][]string{}
	for _, folder := range unitFolders {
		names, err := r.list(folder)
		if errors.Is(err, fs.ErrPermission) {
			r.units.denied = append(r.units.denied, folder)
		}
		listed[folder] = names
	}
	dropIns := dropInFolders(listed)
	for _, folder := range unitFolders {
		for _, name := range listed[folder] {
			at := path.Join(folder, name)
			if !strings.HasSuffix(name, ".service") || seen[name] {
				continue
			}
			if slices.Contains(packageFolders, folder) && !mentions(name) && !hasDropIns(dropIns, name) {
				continue
			}
			seen[name] = true
			if s, ok := r.readUnit(name, at, dropIns); ok {
				r.units.all = append(r.units.all, s)
			}
		}
	}
	// Of an alias and its unit one is enough.
	slices.SortStableFunc(r.units.all, func(a, b service) int { return strings.Compare(a.name, b.name) })
	return r.units.all
}

// unitCache is what was read of the units of a node.
type unitCache struct {
	read   bool
	all    []service
	denied []string

	running processCache
}

func mentions(text string) bool {
	return slices.ContainsFunc(partsOfClusters, func(part string) bool { return strings.Contains(text, part) })
}

// dropInFolders are the folders NAME.service.d that are there, by their name.
func dropInFolders(listed map[string][]string) map[string][]string {
	found := map[string][]string{}
	for _, folder := range unitFolders {
		for _, name := range listed[folder] {
			if strings.HasSuffix(name, ".service.d") || name == "service.d" {
				found[name] = append(found[name], path.Join(folder, name))
			}
		}
	}
	return found
}

// dropInNames are the names of the folders with drop-ins for a unit, the most
// special first (man systemd.unit): foo-bar.service.d, foo-.service.d, service.d.
func dropInNames(unit string) []string {
	stem := strings.TrimSuffix(unit, ".service")
	names := []string{unit + ".d"}
	if template, _, ok := strings.Cut(stem, "@"); ok {
		names = append(names, template+"@.service.d")
	}
	for i := len(stem) - 1; i > 0; i-- {
		if stem[i] == '-' && i != len(stem)-1 {
			names = append(names, stem[:i+1]+".service.d")
		}
	}
	return append(names, "service.d")
}

func hasDropIns(folders map[string][]string, unit string) bool {
	return len(folders[unit+".d"]) > 0
}

// dropIns are the files that change a unit, in the order in which they count:
// by their names, of which the first found hides the others.
func (r *nodeReader) dropIns(folders map[string][]string, unit string) []string {
	files := map[string]string{}
	for _, name := range dropInNames(unit) {
		for _, folder := range folders[name] {
			names, _ := r.list(folder)
			for _, file := range names {
				if _, hidden := files[file]; !hidden && strings.HasSuffix(file, ".conf") {
					files[file] = path.Join(folder, file)
				}
			}
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, files[name])
	}
	return all
}

// readUnit reads a unit with its drop-ins; ok is false where it is masked,
// or runs no part of a cluster.
func (r *nodeReader) readUnit(name, at string, folders map[string][]string) (service, bool) {
	s := service{name: name, at: at, environment: map[string]string{}, from: map[string]string{}}
	content, err := readFile(r.dir, r.links, at)
	if denied(err) && mentions(name) {
		s.denied = append(s.denied, at)
	}
	if err != nil && !denied(err) || content.Target == "/dev/null" {
		return s, false
	}
	text := string(content.Data)
	files := r.dropIns(folders, name)
	if !mentions(name) && !mentions(text) && len(files) == 0 {
		return s, false
	}
	u := unitReader{service: &s, nodeReader: r}
	u.take(at, text)
	for _, file := range files {
		content, err := readFile(r.dir, r.links, file)
		if denied(err) {
			s.denied = append(s.denied, file)
		}
		u.take(file, string(content.Data))
	}
	u.finish()
	return s, len(s.commands) > 0 || len(s.denied) > 0
}

func denied(err error) bool {
	var failed *ReadError
	return errors.As(err, &failed) && failed.State == trust.Denied
}

// unitReader puts the files of one unit together.
type unitReader struct {
	*service
	*nodeReader
	starts           []string // values of ExecStart=
	environmentLines []located
	environmentFiles []string
	unset            []string
}

type located struct{ value, file string }

// take adds the settings of a file to those of the files before.
func (u *unitReader) take(file, text string) {
	for _, s := range parseUnit(text) {
		if s.section != "Service" {
			continue
		}
		switch s.name {
		case "ExecStart":
			u.starts = append(u.starts, s.value)
			if s.value != "" {
				u.at = file
			}
		case "Environment":
			if s.value == "" {
				u.environmentLines = nil
			}
			u.environmentLines = append(u.environmentLines, located{s.value, file})
		case "EnvironmentFile":
			if s.value == "" {
				u.environmentFiles = nil
				continue
			}
			u.environmentFiles = append(u.environmentFiles, s.value)
		case "UnsetEnvironment":
			if s.value == "" {
				u.unset = nil
			}
			u.unset = append(u.unset, s.value)
		}
	}
}

// finish makes the environment, files after lines, and expands the commands.
func (u *unitReader) finish() {
	specifiers := unitSpecifiers(u.name)
	for _, line := range u.environmentLines {
		for _, w := range unitWords(line.value) {
			if name, value, ok := strings.Cut(expandSpecifiers(w.text, specifiers), "="); ok && isVariableName(name) {
				u.environment[name], u.from[name] = value, line.file
			}
		}
	}
	for _, value := range u.environmentFiles {
		value = expandSpecifiers(value, specifiers)
		file := strings.TrimPrefix(value, "-")
		for _, at := range u.matching(file) {
			content, err := readFile(u.dir, u.links, at)
			switch {
			case denied(err):
				u.service.denied = append(u.service.denied, at)
			case err != nil && file == value:
				u.missing = append(u.missing, at)
			}
			for _, v := range parseEnvironment(string(content.Data)) {
				u.environment[v.name], u.from[v.name] = v.value, at
			}
		}
	}
	for _, value := range u.unset {
		for _, w := range unitWords(value) {
			name, only, pair := strings.Cut(w.text, "=")
			if !pair || u.environment[name] == only {
				delete(u.environment, name)
			}
		}
	}
	u.commands = execStart(u.starts, u.environment, specifiers)
}

// matching are the files of a pattern; without a wildcard, the file itself.
func (u *unitReader) matching(pattern string) []string {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{path.Clean(pattern)}
	}
	var found []string
	names, _ := u.list(path.Dir(pattern))
	for _, name := range names {
		if ok, _ := path.Match(path.Base(pattern), name); ok {
			found = append(found, path.Join(path.Dir(pattern), name))
		}
	}
	return found
}

// known tells whether all that makes the unit's command lines was read.
func (s *service) known() bool { return len(s.missing)+len(s.denied) == 0 }

// unitComponents are the components that units run, in the order of the units.
// Where two run one, that with the usual name comes first.
func (r *nodeReader) unitComponents() []trust.Component {
	var all []trust.Component
	for _, s := range r.services() {
		if !s.known() {
			continue
		}
		for _, command := range s.commands {
			if c, ok := r.unitComponent(s, command); ok {
				all = append(all, c)
			}
		}
	}
	usual := func(c trust.Component) int {
		if strings.Contains(c.Source.Path, "/"+c.Name+".service") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b trust.Component) int { return usual(a) - usual(b) })
	return all
}

func (r *nodeReader) unitComponent(s service, command unitCommand) (trust.Component, bool) {
	name, words := command.component(s.environment)
	if name == "" {
		return trust.Component{}, false
	}
	c := trust.Component{Node: r.node.Name, Name: name, Source: r.place(s.at), Flags: map[string][]string{}, Settings: map[string]trust.Place{}}
	for _, f := range flagsIn(words) {
		c.Flags[f.name] = append(c.Flags[f.name], f.value)
		// What a variable brings stands where that is set.
		if file := s.whence(f.word); file != "" && file != s.at {
			c.Settings[f.name] = r.place(file).In("--" + f.name)
		} else {
			delete(c.Settings, f.name)
		}
	}
	if name == catalog.Etcd {
		for _, variable := range slices.Sorted(maps.Keys(s.environment)) {
			if flag, ok := etcdFlag(variable); ok && c.Flags[flag] == nil && s.environment[variable] != "" {
				c.Flags[flag] = []string{s.environment[variable]}
				c.Settings[flag] = r.place(s.from[variable]).In(variable)
			}
		}
	}
	return c, true
}

// etcdFlag is the flag that a variable of etcd stands for (etcd
// pkg/flags/flag.go).
func etcdFlag(variable string) (string, bool) {
	name, ok := strings.CutPrefix(variable, "ETCD_")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-"), ok
}

// whence is the file of the variable that holds a flag's word; empty where the
// command itself does.
func (s *service) whence(word string) string {
	for _, name := range slices.Sorted(maps.Keys(s.environment)) {
		if value := s.environment[name]; strings.Contains(value, "--") && slices.ContainsFunc(unitWords(value), func(w unitWord) bool { return w.text == word }) {
			return s.from[name]
		}
	}
	return ""
}

// addUnits adds the components of units that nothing else configures, and says
// what of them was not understood.
func (r *nodeReader) addUnits() {
	for _, c := range r.unitComponents() {
		if c.Name != catalog.Kubelet { // readKubelet did
			r.addComponent(c)
		}
	}
	r.denied = append(r.denied, r.units.denied...)
	for _, s := range r.services() {
		r.denied = append(r.denied, s.denied...)
		for _, file := range s.missing {
			r.addMissing(s, file)
		}
		if program := strings.TrimSuffix(s.name, ".service"); !r.runs(s) && slices.Contains(nodePrograms, program) && len(s.commands) > 0 {
			r.notSeen(s.at, "runs "+path.Base(s.commands[0].words[0])+", in which no command line of "+program+" was found: its flags are not known")
		}
	}
}

// addMissing notes an environment file without which a unit does not start.
func (r *nodeReader) addMissing(s service, file string) {
	_, err := readFile(r.dir, r.links, file)
	var failed *ReadError
	switch {
	case !r.runs(s) || !errors.As(err, &failed):
	case r.node.Live:
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: r.place(file), Role: trust.RoleConfiguration, State: failed.State, Reason: failed.Reason + ", and " + s.name + " does not start without it"})
	default:
		r.notSeen(file, "the environment file of "+s.name+" "+failed.Reason+": what flags it starts with is not known")
	}
}

func (r *nodeReader) runs(s service) bool {
	return slices.ContainsFunc(s.commands, func(c unitCommand) bool { name, _ := c.component(s.environment); return name != "" })
}
