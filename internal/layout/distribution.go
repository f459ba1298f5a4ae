package layout

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// ownSetting is what a distribution's own configuration says under one key.
type ownSetting struct {
	values []string
	at     trust.Place
}

// ownSettings are those of configuration files and units, by key.
type ownSettings map[string]ownSetting

func (s ownSettings) last(key string) string {
	if v := s[key].values; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (s ownSettings) on(key string) bool { return s.last(key) == "true" }

// first returns the setting of the first key that is set.
func (s ownSettings) first(keys ...string) ownSetting {
	for _, k := range keys {
		if len(s[k].values) > 0 {
			return s[k]
		}
	}
	return ownSetting{}
}

// readKeys reads a file of keys and values; a key that ends with "+"
// adds to what other files say.
func (r *nodeReader) readKeys(at string, into ownSettings) {
	content, err := r.read(at, false)
	if err != nil {
		if err.State == trust.Unreadable {
			r.notSeen(at, "the configuration "+err.Reason)
		}
		return
	}
	var keys map[string]any
	if err := decodeYAML(content.Data, &keys); err != nil {
		r.notSeen(at, "the configuration was not understood: "+err.Error())
		return
	}
	for key, value := range keys {
		if strings.Contains(key, "token") {
			continue // a secret, and nothing here asks for it
		}
		name, adds := strings.CutSuffix(key, "+")
		v := ownSetting{values: texts(value), at: r.place(at).In(key)}
		if adds {
			v.values = append(slices.Clone(into[name].values), v.values...)
		}
		into[name] = v
	}
}

// texts are the values of a list, or a single one, as text.
func texts(value any) []string {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, texts(e)...)
		}
		return all
	case map[string]any:
		return nil
	}
	return []string{fmt.Sprint(value)} // a text, a number, true or false
}

// unitSettings adds the flags of a program that systemd units start, and what
// their environment says of some of them. They win over the files.
func (r *nodeReader) unitSettings(program string, variables map[string]string, into ownSettings) {
	for _, s := range r.services() {
		for _, command := range s.commands {
			if path.Base(command.words[0]) != program {
				continue
			}
			for variable, key := range variables {
				if v := s.environment[variable]; v != "" {
					into[key] = ownSetting{values: []string{v}, at: r.place(s.from[variable]).In(variable)}
				}
			}
			for flag, values := range parseFlags(command.words[1:]) {
				into[flag] = ownSetting{values: values, at: r.place(s.at).In("--" + flag)}
			}
		}
	}
}

// apart is a reader of the same root that leaves no trace in this one.
func (r *nodeReader) apart() *nodeReader {
	r.services()
	other := newNodeReader(r.dir, r.node.Name)
	other.links, other.units = r.links, r.units
	return other
}

// component returns the component of a name, which is added where it is not there.
func (r *nodeReader) component(name string) *trust.Component {
	i := slices.IndexFunc(r.node.Components, func(c trust.Component) bool { return c.Name == name })
	if i < 0 {
		i = len(r.node.Components)
		r.node.Components = append(r.node.Components, trust.Component{Node: r.node.Name, Name: name, Flags: map[string][]string{}})
	}
	return &r.node.Components[i]
}

func (r *nodeReader) has(name string) bool {
	return slices.ContainsFunc(r.node.Components, func(c trust.Component) bool { return c.Name == name })
}

// set gives a component a flag that a file sets.
func set(c *trust.Component, flag string, at trust.Place, values ...string) {
	if len(values) == 0 {
		return
	}
	if c.Settings == nil {
		c.Settings = map[string]trust.Place{}
	}
	c.Flags[flag], c.Settings[flag] = values, at
}

// addArguments gives a component the flags that its distribution hands on from
// its own configuration: a list of NAME=VALUE.
func (r *nodeReader) addArguments(component string, s ownSetting) {
	if len(s.values) == 0 {
		return
	}
	c := r.component(component)
	c.Source = s.at.File()
	for _, argument := range s.values {
		name, value, given := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		if !given {
			value = "true"
		}
		set(c, name, c.Source.In("--"+name), value)
	}
}

// finish reads what the components and the authorities name, and says what is
// there and not read.
func (r *nodeReader) finish(d *catalog.Distribution, data string) {
	r.readDynamic()
	r.configure()
	for _, u := range catalog.FilesOf(&r.node) {
		r.use(u)
	}
	if r.has(catalog.APIServer) {
		for _, u := range d.Unseen {
			if at := path.Join(data, u.Path); r.exists(at) {
				r.notSeen(at, u.Reason)
			}
		}
	}
	r.readFiles()
}
