package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// trustNodes are the nodes that a command looks at.
type trustNodes struct{ *apply.Nodes }

func readTrustNodes(values []string, only string) (*trustNodes, error) {
	roots, err := parseRoots(values)
	if err != nil {
		return nil, err
	}
	one := cluster{nodes: roots}
	if one.layout, err = parseLayout(only); err != nil {
		return nil, err
	}
	if one, err = one.alone(); err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, root := range roots {
		for _, r := range expand(root) {
			if other, twice := dirs[r.name]; twice {
				return nil, usagef("--root: two nodes are called %q (%s and %s): use NAME=DIR", r.name, other, r.dir)
			}
			dirs[r.name] = r.dir
		}
	}
	nodes, keys, err := readCluster(one)
	if err != nil {
		return nil, err
	}
	for _, root := range roots {
		if layout.IsRoot(root.dir) || dirs[catalog.UsersDir] != "" {
			continue
		}
		if _, _, ok := layout.ReadUsers(root.dir); ok {
			dirs[catalog.UsersDir] = layout.UsersRoot(root.dir)
		}
	}
	return &trustNodes{apply.New(dirs, nodes, keys)}, nil
}

// readMendedNodes reads nodes after what an interrupted run left on them was mended; with
// dryRun they are read as they are.
func readMendedNodes(s streams, roots []string, layout string, dryRun bool) (*trustNodes, error) {
	n, err := readTrustNodes(roots, layout)
	if err != nil || dryRun {
		return n, err
	}
	mended := false
	for _, dir := range n.Dirs {
		changed, err := (&trustSource{talk: s.err}).mend(dir)
		if err != nil {
			return nil, err
		}
		mended = mended || changed
	}
	if mended {
		return readTrustNodes(roots, layout)
	}
	return n, nil
}

// trustBundle is one bundle that a command is about: a file, or a field of an object.
type trustBundle struct {
	target string // as a command names it
	// setting is one of those that read the file; zero: no node is known to.
	setting bundle.Setting
	file    trust.Place // links followed
	dir     string      // root of its node
	object  *kube.BundleObject
	field   kube.BundleField
	text    *bundle.Text
}

// where names the place for people.
func (b *trustBundle) where() string {
	if b.object != nil {
		return b.object.Ref.Resource + "/" + strings.TrimPrefix(path.Join(b.object.Ref.Namespace, b.object.Ref.Name), "/") + "#" + b.field.Field
	}
	if !b.known() {
		return filepath.Join(b.dir, b.file.Path)
	}
	return b.file.String()
}

// known tells that a component of the nodes reads the bundle, and which links it has.
func (b *trustBundle) known() bool { return b.setting.Component != "" }

// trustSource finds the bundles of targets, reading nodes and cluster when they are
// needed.
type trustSource struct {
	flags *trustFlags
	nodes *trustNodes
	api   *kube.Bundles
	// talk, unless nil, says that bundles are looked for to change them: what an
	// interrupted run left is mended before, and told there.
	talk io.Writer
	// mended tells that an interrupted run was.
	mended bool
	// makes tells that a key of an object that is not there is made.
	makes bool
}

// find returns the bundles of a target, each file once.
func (s *trustSource) find(ctx context.Context, target string) ([]*trustBundle, error) {
	found, err := s.look(ctx, target)
	if err != nil || s.talk == nil {
		return found, err
	}
	var mended []string
	again := false
	for _, b := range found {
		if b.object != nil || slices.Contains(mended, b.dir) {
			continue
		}
		did, err := s.mend(b.dir)
		if err != nil {
			return nil, err
		}
		mended, again = append(mended, b.dir), again || did
	}
	if again {
		s.nodes, s.mended = nil, true
		return s.look(ctx, target)
	}
	return found, nil
}

// mend finishes or takes back what an interrupted run left below a root, and tells
// whether it changed a file. Else a plan would be made of what stands there now, and
// not hold when it is carried out.
func (s *trustSource) mend(dir string) (bool, error) {
	tx, err := layout.Begin(dir)
	if err != nil {
		return false, err
	}
	r := tx.Recovered()
	if r.Finished+r.Removed > 0 {
		fmt.Fprintf(s.talk, "an interrupted run was mended below %s: %d files finished, %d temporaries removed\n", dir, r.Finished, r.Removed)
	}
	return r.Finished+r.Removed > 0, tx.Rollback()
}

func (s *trustSource) look(ctx context.Context, target string) ([]*trustBundle, error) {
	if file, ok := strings.CutPrefix(target, "file:"); ok {
		return s.findFile(target, file)
	}
	ref, ofAPI, err := kube.ParseBundleRef(target)
	if err != nil {
		return nil, usageError{err}
	}
	if ofAPI {
		return s.findObject(ctx, target, ref)
	}
	return s.findSetting(target)
}

func (s *trustSource) readNodes() error {
	if s.nodes != nil {
		return nil
	}
	var err error
	s.nodes, err = readTrustNodes(s.flags.roots, s.flags.layout)
	return err
}

// isSettingTarget tells whether a target names a flag, and no file or object.
func isSettingTarget(target string) bool {
	_, ofAPI, _ := kube.ParseBundleRef(target)
	return !ofAPI && !strings.HasPrefix(target, "file:")
}

// settings are those that a target names, on all nodes.
func (s *trustSource) settings(target string) ([]bundle.Setting, error) {
	if strings.Count(target, "/") < 1 || strings.HasPrefix(target, "/") || strings.HasPrefix(target, ".") {
		return nil, advise(usagef("%q is no target: a component's flag is named as kube-apiserver/client-ca-file", target), "a file is named as file:%s, and kubepki trust list -o name lists what there is", target)
	}
	if err := s.readNodes(); err != nil {
		return nil, err
	}
	var found []bundle.Setting
	for _, setting := range s.nodes.Settings {
		if target != setting.Target() && target != path.Join(setting.Component, setting.Name) {
			continue
		}
		if setting.Role != trust.RoleBundle {
			return nil, usagef("%s names the authority that signs, which is no bundle", target)
		}
		found = append(found, setting)
	}
	if len(found) == 0 {
		hint := "kubepki trust list -o name lists what there is"
		if near := s.nodes.near(target); len(near) > 0 {
			hint = "there is " + strings.Join(near, ", ") + "; " + hint
		}
		return nil, advise(fmt.Errorf("%s: no component of the nodes has such a bundle", target), "%s", hint)
	}
	return found, nil
}

// near are the bundles that a mistyped target may mean: those of the component that
// it names, or of the flag.
func (n *trustNodes) near(target string) []string {
	words := strings.FieldsFunc(strings.ToLower(target), func(r rune) bool { return r == '/' })
	var near []string
	for _, part := range []func(bundle.Setting) string{
		func(s bundle.Setting) string { return s.Component },
		func(s bundle.Setting) string { return s.Name },
	} {
		for _, s := range n.Settings {
			name := path.Join(s.Component, s.Name)
			if s.Role == trust.RoleBundle && slices.Contains(words, part(s)) && !slices.Contains(near, name) {
				near = append(near, name)
			}
		}
		if len(near) > 0 {
			break
		}
	}
	return near
}

// findSetting finds a flag's bundle on all nodes.
func (s *trustSource) findSetting(target string) ([]*trustBundle, error) {
	settings, err := s.settings(target)
	if err != nil {
		return nil, err
	}
	var found []*trustBundle
	for _, setting := range settings {
		b := &trustBundle{target: target, setting: setting, file: bundle.File(s.nodes.Graph, setting.Anchors), dir: s.nodes.Dirs[setting.Node]}
		if slices.ContainsFunc(found, func(o *trustBundle) bool { return o.file == b.file }) {
			continue
		}
		if err := b.read(s.nodes.Graph); err != nil {
			return nil, err
		}
		found = append(found, b)
	}
	return found, nil
}

// read reads the text. That of a kubeconfig is its field, which is listed and
// compared, but not edited here.
func (b *trustBundle) read(g *trust.Graph) error {
	if b.file.Field != "" {
		m := g.Material(b.file)
		if !m.OK() {
			return fmt.Errorf("%s: cannot be read", b.file)
		}
		var err error
		b.text, err = bundle.Parse(trust.EncodeCertificates(m.Certificates...))
		return err
	}
	content, err := layout.ReadFile(b.dir, b.file.Path)
	var failed *layout.ReadError
	if errors.As(err, &failed) {
		return adviseDenied(fmt.Errorf("%s: %s", b.file, failed.Reason), failed.State)
	}
	if err != nil {
		return err
	}
	if b.text, err = bundle.Parse(content.Data); err != nil {
		return fmt.Errorf("%s: %w", b.file, err)
	}
	return nil
}

func adviseDenied(err error, state trust.State) error {
	if state == trust.Denied {
		return advise(err, "run it with sudo")
	}
	return err
}

// findFile finds a file of this machine. Where a component of the nodes reads it, it
// is that one's bundle, and judged as such: another name for a file opens no door.
func (s *trustSource) findFile(target, file string) ([]*trustBundle, error) {
	if file == "" {
		return nil, usagef("%q names no file: use file:PATH", target)
	}
	abs, err := filepath.Abs(file)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, underlying(err))
	}
	var unknown *layout.UnknownError
	if err := s.readNodes(); err != nil && (len(s.flags.roots) > 0 || !errors.As(err, &unknown)) {
		return nil, err
	}
	b := &trustBundle{target: target, file: trust.Place{Path: "/" + filepath.Base(abs)}, dir: filepath.Dir(abs)}
	if s.nodes != nil {
		for _, setting := range s.nodes.Settings {
			at := bundle.File(s.nodes.Graph, setting.Anchors)
			if at.Field == "" && sameFile(abs, filepath.Join(s.nodes.Dirs[setting.Node], at.Path)) {
				b.setting, b.file, b.dir = setting, at, s.nodes.Dirs[setting.Node]
				break
			}
		}
	}
	content, err := layout.ReadFile(b.dir, b.file.Path)
	var failed *layout.ReadError
	if errors.As(err, &failed) {
		return nil, adviseDenied(fmt.Errorf("%s: %s", file, failed.Reason), failed.State)
	}
	if err != nil {
		return nil, err
	}
	if b.text, err = bundle.Parse(content.Data); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return []*trustBundle{b}, nil
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// underlying strips what package os says of the operation.
func underlying(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *trustSource) connect() error {
	if s.api != nil {
		return nil
	}
	config, err := configure(s.flags.access)
	if err != nil {
		return err
	}
	s.api, err = kube.NewBundles(config)
	return err
}

func (s *trustSource) findObject(ctx context.Context, target string, ref kube.BundleRef) ([]*trustBundle, error) {
	if err := s.connect(); err != nil {
		return nil, err
	}
	o, err := s.api.Get(ctx, ref)
	if err != nil {
		return nil, adviseBundle(err, ref)
	}
	if err := o.Absent(); err != nil && !s.makes {
		return nil, err
	}
	var found []*trustBundle
	for _, f := range o.Fields {
		text, err := bundle.Parse(f.PEM)
		if err != nil {
			return nil, fmt.Errorf("%s#%s: %w", ref, f.Field, err)
		}
		found = append(found, &trustBundle{target: target, object: o, field: f, text: text})
	}
	return found, nil
}

func adviseBundle(err error, ref kube.BundleRef) error {
	if apierrors.IsNotFound(err) {
		return err
	}
	in := ""
	if ref.Namespace != "" {
		in = " in namespace " + ref.Namespace
	}
	return adviseAPI(err, "give yourself the right to get and update "+ref.Resource+"s"+in)
}
