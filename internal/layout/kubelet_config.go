package layout

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// kubeletField is a field of k8s.io/kubelet/config/v1beta1 KubeletConfiguration
// that matters to trust, and the flag that means the same (k/k
// cmd/kubelet/app/options/options.go).
type kubeletField struct {
	path, flag string
	kind       string // "a text", "a number", "true or false"
	file       bool   // a path: relative ones are of the folder of --config
}

var kubeletFields = []kubeletField{
	{path: "authentication.x509.clientCAFile", flag: "client-ca-file", kind: aText, file: true},
	{path: "authentication.anonymous.enabled", flag: "anonymous-auth", kind: aBool},
	{path: "authentication.webhook.enabled", flag: "authentication-token-webhook", kind: aBool},
	{path: "authorization.mode", flag: "authorization-mode", kind: aText},
	{path: "tlsCertFile", flag: "tls-cert-file", kind: aText, file: true},
	{path: "tlsPrivateKeyFile", flag: "tls-private-key-file", kind: aText, file: true},
	{path: "serverTLSBootstrap", flag: catalog.ServerTLSBootstrap, kind: aBool},
	{path: "rotateCertificates", flag: "rotate-certificates", kind: aBool},
	{path: "readOnlyPort", flag: "read-only-port", kind: aNumber},
	{path: "address", flag: "address", kind: aText},
	{path: "port", flag: "port", kind: aNumber},
	{path: "containerRuntimeEndpoint", flag: "container-runtime-endpoint", kind: aText},
	{path: "fileCheckFrequency", flag: "file-check-frequency", kind: aText},
	{path: "healthzBindAddress", flag: "healthz-bind-address", kind: aText},
	{path: "healthzPort", flag: "healthz-port", kind: aNumber},
	{path: "staticPodPath", flag: "pod-manifest-path", kind: aText, file: true},
}

const (
	aText   = "a text"
	aNumber = "a number"
	aBool   = "true or false"
)

// kubeletDocument is the configuration file of a kubelet, or a drop-in to it.
type kubeletDocument struct {
	place  trust.Place
	fields map[string]any
	dropIn bool
}

func parseKubelet(place trust.Place, data []byte, dropIn bool) (kubeletDocument, error) {
	d := kubeletDocument{place: place, dropIn: dropIn}
	if err := decodeYAML(data, &d.fields); err != nil {
		return d, err
	}
	kind, version := d.fields["kind"], d.fields["apiVersion"]
	switch {
	case kind == nil && !dropIn: // what wants one is said by the kubelet itself
	case kind != "KubeletConfiguration":
		return d, &fieldError{"kind", "is not KubeletConfiguration"}
	case version != "kubelet.config.k8s.io/v1beta1" && (dropIn || version != nil):
		return d, &fieldError{"apiVersion", "is not kubelet.config.k8s.io/v1beta1"}
	}
	return d, nil
}

// mergeKubelet sets the flags and settings of a kubelet from its configuration
// file, or from a drop-in to what came before. A drop-in is a JSON merge patch
// (RFC 7386): what it sets replaces, null takes back to the default (k/k
// cmd/kubelet/app/server.go, mergeKubeletConfigurations).
func mergeKubelet(c *trust.Component, d kubeletDocument) error {
	if c.Settings == nil {
		c.Settings = map[string]trust.Place{}
	}
	for _, f := range kubeletFields {
		value, said, err := lookUp(d.fields, strings.Split(f.path, "."))
		if err != nil {
			return err
		}
		if !said {
			continue
		}
		delete(c.Flags, f.flag)
		delete(c.Settings, f.flag)
		if value == nil {
			continue
		}
		text, ok := f.text(value)
		switch {
		case !ok:
			return &fieldError{f.path, "is not " + f.kind}
		case text == "" || text == "0" && f.path == "port":
			continue // as good as not set
		case f.file && !path.IsAbs(text):
			text = path.Join(relativeTo(d), text)
		}
		c.Flags[f.flag], c.Settings[f.flag] = []string{text}, d.place.In(f.path)
	}
	return nil
}

// relativeTo is the folder of a configuration file (k/k
// pkg/kubelet/kubeletconfig/configfiles/configfiles.go). Paths in drop-ins are
// left as they are, and so are of the folder that the kubelet runs in, which is
// "/" for a unit.
func relativeTo(d kubeletDocument) string {
	if d.dropIn {
		return "/"
	}
	return path.Dir(d.place.Path)
}

// lookUp follows names into a JSON object. A null on the way is the value of all
// below it.
func lookUp(object map[string]any, names []string) (value any, said bool, err error) {
	for i, name := range names {
		if value, said = object[name]; !said || value == nil || i == len(names)-1 {
			return value, said, nil
		}
		inner, ok := value.(map[string]any)
		if !ok {
			return nil, false, &fieldError{strings.Join(names[:i+1], "."), "is not a mapping"}
		}
		object = inner
	}
	return value, said, nil
}

func (f *kubeletField) text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, f.kind == aText
	case bool:
		return strconv.FormatBool(v), f.kind == aBool
	case int64:
		return strconv.FormatInt(v, 10), f.kind == aNumber
	}
	return "", false
}

// configureKubelet completes a kubelet, whose flags are those of its command
// line and whose source is where that stands, with what its configuration files
// set; flags come before files. Without --config, config is where the file
// stands by default, and may be absent; empty: there is none. Whole tells that
// all of the command line is known, so that what no file and no flag sets is the
// default of the flags (applyLegacyDefaults in k/k
// cmd/kubelet/app/options/options.go), which is open.
func (r *nodeReader) configureKubelet(c *trust.Component, config string, whole bool) {
	line, at, source := c.Flags, c.Settings, c.Source
	c.Flags, c.Settings = map[string][]string{}, map[string]trust.Place{}
	named, ok := last(line["config"])
	if ok {
		config = absolute(named)
	}
	if whole && config == "" {
		for flag, value := range map[string]string{"anonymous-auth": "true", "authentication-token-webhook": "false", "authorization-mode": "AlwaysAllow", "read-only-port": "10255"} {
			c.Flags[flag] = []string{value}
		}
	}
	var documents []kubeletDocument
	if config != "" {
		if d, ok := r.readKubeletConfig(c, config, named != ""); ok {
			documents = append(documents, d)
			if source.IsZero() {
				c.Source = d.place
			}
		}
	}
	if folder, ok := last(line["config-dir"]); ok && folder != "" {
		documents = append(documents, r.readDropIns(c, folder)...)
	}
	for _, d := range documents {
		if err := mergeKubelet(c, d); err != nil {
			c.Conflicts = append(c.Conflicts, refusedFile(d.place, "the kubelet", err))
		}
	}
	if v, ok := line["rotate-server-certificates"]; ok {
		line[catalog.ServerTLSBootstrap] = v
	}
	for flag, values := range line {
		c.Flags[flag] = values
		delete(c.Settings, flag)
		if p, ok := at[flag]; ok {
			c.Settings[flag] = p
		} else if !source.IsZero() && source != c.Source {
			c.Settings[flag] = source.In("--" + flag)
		}
	}
}

func last(values []string) (string, bool) {
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}

// absolute is a path as a process in "/" sees it.
func absolute(p string) string { return path.Join("/", p) }

func (r *nodeReader) readKubeletConfig(c *trust.Component, at string, named bool) (kubeletDocument, bool) {
	content, err := r.read(at, false)
	switch {
	case err != nil && err.State == trust.Missing && !named:
		return kubeletDocument{}, false
	case err != nil:
		r.addConfiguration(at, err)
		return kubeletDocument{}, false
	}
	d, parseErr := parseKubelet(r.place(at), content.Data, false)
	if parseErr != nil {
		c.Conflicts = append(c.Conflicts, refusedFile(d.place, "the kubelet", parseErr))
	}
	return d, parseErr == nil
}

// readDropIns reads the files *.conf of a folder and those below it, in lexical
// order. What is wrong with one of them keeps the kubelet from starting.
func (r *nodeReader) readDropIns(c *trust.Component, given string) []kubeletDocument {
	folder := absolute(given)
	if !strings.HasSuffix(given, "/") && r.isLink(folder) {
		// filepath.WalkDir takes a link for a file.
		r.notSeen(folder, "is a symbolic link: the kubelet does not follow it and reads none of its drop-ins; name the folder itself in --config-dir")
		return nil
	}
	names, err := r.walk(folder)
	if errors.Is(err, fs.ErrPermission) {
		r.denied = append(r.denied, folder)
	}
	if err != nil {
		r.addConfiguration(folder, readError(folder, err))
		return nil
	}
	var documents []kubeletDocument
	for _, at := range names {
		if path.Ext(at) != ".conf" {
			continue
		}
		content, err := r.read(at, false)
		if err != nil {
			r.addConfiguration(at, err)
			continue
		}
		d, parseErr := parseKubelet(r.place(at), content.Data, true)
		if parseErr != nil {
			c.Conflicts = append(c.Conflicts, refusedFile(d.place, "the kubelet", parseErr))
			continue
		}
		documents = append(documents, d)
	}
	return documents
}

// isLink tells whether the last part of a path is a symbolic link.
func (r *nodeReader) isLink(at string) bool {
	folder, err := resolve(r.links, path.Dir(at))
	if err != nil || len(folder.absent) > 0 {
		return false
	}
	info, err := r.links.Lstat(path.Join(folder.name, path.Base(at)))
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// walk lists the files of a folder and of those below it as filepath.WalkDir
// does: in lexical order, hidden ones too, links to folders not followed.
func (r *nodeReader) walk(folder string) ([]string, error) {
	at, err := resolve(r.links, folder)
	if err != nil {
		return nil, err
	}
	if len(at.absent) > 0 {
		return nil, fs.ErrNotExist
	}
	var files []string
	err = fs.WalkDir(r.dir.FS(), at.name, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() {
			files = append(files, path.Join(folder, strings.TrimPrefix(name, at.name)))
		}
		if len(files) > maxEntries {
			return fs.SkipAll
		}
		return nil
	})
	return files, err
}
