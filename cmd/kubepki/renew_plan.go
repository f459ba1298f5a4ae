package main

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewPlanFlags tell what is due, and what is wanted.
type renewPlanFlags struct {
	due, prune, users           bool
	expiring, config, algorithm string
	kubeconfigs                 []string

	people []trust.Place // kubeconfigs of people that are renewed too
	left   []renew.Left  // what is due and is not renewed
}

func (f *renewPlanFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.due, "due", false, "what ends soon, what a finding is about, and what the configuration wants otherwise")
	flags.StringVar(&f.expiring, "expiring", "", "with --due: what has less life left than this, like 720h or 30d (default a third of its life)")
	flags.StringVar(&f.config, "config", "", "configuration file, kubeadm's or a Cluster of "+config.APIVersion+": its names, kind of key and life are what is wanted (- is standard input)")
	flags.BoolVar(&f.prune, "prune-names", false, "with --config: leave out names that neither it nor a link asks for")
	flags.StringVar(&f.algorithm, "algorithm", "", "kind of the new keys, like ECDSA-P256 (default the configuration's or the old key's)")
	flags.StringArrayVar(&f.kubeconfigs, "kubeconfigs", nil, "one more kubeconfig, as [NODE:]PATH, that is renewed with them; repeatable")
	flags.BoolVar(&f.users, "users", false, "renew copies in /root/.kube/config too, and users' kubeconfigs beside the nodes (DIR/users of init --out)")
}

// check refuses flags that do not go together.
func (f *renewPlanFlags) check(o *renewOptions, ids []string) error {
	switch {
	case f.due && (o.all || len(ids) > 0):
		return usagef("--due: goes neither with --all nor with names: it tells by itself what is to be renewed")
	case f.expiring != "" && !f.due:
		return usagef("--expiring: goes with --due")
	case f.prune && f.config == "":
		return usagef("--prune-names: goes with --config, which tells the names that stay")
	case f.algorithm != "" && o.reuseKey:
		return usagef("--algorithm: does not go with --reuse-key")
	}
	if _, err := issue.ParseAlgorithm(f.algorithm); err != nil {
		return usagef("--algorithm: %s", err)
	}
	if f.expiring != "" {
		if _, err := parseLife("--expiring", f.expiring); err != nil {
			return err
		}
	}
	return nil
}

// use sets what the flags say of a plan.
func (f *renewPlanFlags) use(o *renew.Options) error {
	if f.expiring != "" {
		o.Within, _ = parseLife("--expiring", f.expiring) // was checked
	}
	if f.algorithm != "" {
		o.Algorithm, _ = issue.ParseAlgorithm(f.algorithm) // was checked
	}
	o.PruneNames, o.Kubeconfigs, o.Users = f.prune, f.people, f.users
	if f.config == "" {
		return nil
	}
	data, err := (&clusterFlags{config: f.config}).load()
	if err != nil {
		return err
	}
	o.Configured = func(_, name string, address netip.Addr) (*catalog.Cluster, error) {
		return config.Parse(f.config, data, hostOf(name, address))
	}
	return nil
}

// hostOf tells a configuration name and address of a node, where it says neither.
func hostOf(name string, address netip.Addr) config.Host {
	return config.Host{
		Name: func() (string, error) {
			if name == "" {
				return "", errors.New("no file of the node tells its name: set nodeRegistration.name of an InitConfiguration")
			}
			return name, nil
		},
		Address: func() (netip.Addr, error) {
			if !address.IsValid() {
				return address, errors.New("no file of the node tells its address: set localAPIEndpoint.advertiseAddress of an InitConfiguration")
			}
			return address, nil
		},
	}
}

// options are those of the plan.
func (o *renewOptions) options(n *trustNodes, at time.Time) (renew.Options, error) {
	p := renew.Options{At: at, ReuseKey: o.reuseKey, Server: o.server, Elsewhere: o.external.elsewhere(), Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }}
	return p, o.plan.use(&p)
}

// planned are the items that the arguments, or --all or --due, stand for.
func (o *renewOptions) planned(s streams, n *trustNodes, before *check.Result, ids []string, p renew.Options) ([]*renew.Item, error) {
	switch {
	case o.plan.due:
		items, left := renew.Due(n.Graph, before.Findings, p)
		sayLeft(s, left)
		o.plan.left = left
		return items, nil
	case o.all:
		items, left := renew.All(n.Graph, before.Findings, p)
		for _, l := range left {
			fmt.Fprintf(s.err, "kubepki: %s is left alone: %s\n", report.Plain(l.ID), report.Plain(l.Err.Error()))
		}
		if len(items) == 0 && len(left) > 0 {
			return nil, left[0].Err
		}
		return items, nil
	}
	return renew.Plan(n.Graph, before.Findings, append(slices.Clone(ids), o.plan.targets(n)...), p)
}

// sayLeft warns of what is due and not renewed.
func sayLeft(s streams, left []renew.Left) {
	for _, l := range left {
		fmt.Fprintf(s.err, "kubepki: warning: %s is due (%s) and is not renewed: %s\n", report.Plain(l.ID), report.Plain(strings.Join(l.Why, "; ")), report.Plain(l.Err.Error()))
	}
}

// pending is the end of a dry run: that changes are, where what is due was looked for.
func (o *renewOptions) pending() error {
	if o.plan.due && o.dryRun {
		return errFindings
	}
	return nil
}

// undone is the error that says that something due was not renewed; nil when all was.
func (f *renewPlanFlags) undone() error {
	var ids []string
	var first error
	for _, l := range f.left {
		if l.Authority {
			continue // it is said, and is somebody's decision
		}
		first = cmp.Or(first, l.Err)
		ids = append(ids, l.ID)
	}
	if first == nil {
		return nil
	}
	err := fmt.Errorf("due and not renewed: %s", strings.Join(ids, ", "))
	for _, h := range hints(first) {
		err = advise(err, "%s", h)
	}
	return err
}

// leftItems are what is due and not renewed, authorities too.
func (f *renewPlanFlags) leftItems() []leftItem {
	all := []leftItem{}
	for _, l := range f.left {
		i := leftItem{ID: l.ID, Why: l.Why, Reason: l.Err.Error()}
		if h := hints(l.Err); len(h) > 0 {
			i.Hint = h[0]
		}
		all = append(all, i)
	}
	return all
}

// targets are the kubeconfigs that were named one by one.
func (f *renewPlanFlags) targets(n *trustNodes) []string {
	var all []string
	for _, at := range f.people {
		if slices.ContainsFunc(f.kubeconfigs, func(v string) bool { return kubeconfigPlace(n, v) == at }) {
			all = append(all, at.Node+":"+at.Path)
		}
	}
	return all
}

// kubeconfigPlace reads [NODE:]PATH.
func kubeconfigPlace(n *trustNodes, value string) trust.Place {
	node, file, ok := strings.Cut(value, ":")
	if _, known := n.Dirs[node]; !ok || !known || !path.IsAbs(file) {
		node, file = "", value
		if _, users := n.Dirs[catalog.UsersDir]; len(n.Dirs) == 1 || len(n.Dirs) == 2 && users { // users' folder is beside the node
			node = n.Graph.Nodes[0].Name
		}
	}
	if abs, err := filepath.Abs(file); err == nil && !path.IsAbs(file) {
		file = filepath.ToSlash(abs)
	}
	return trust.Place{Node: node, Path: path.Clean(file)}
}

// rootsConfig is where kubectl looks for root's kubeconfig.
const rootsConfig = "/root/.kube/config"

// read adds the kubeconfigs of people to the nodes, those of root where --users is given.
func (f *renewPlanFlags) read(n *trustNodes) (*trustNodes, error) {
	for _, v := range f.kubeconfigs {
		at := kubeconfigPlace(n, v)
		if _, known := n.Dirs[at.Node]; !known {
			return nil, usagef("--kubeconfigs: %q does not say on which node it is: NODE:PATH", v)
		}
		f.people = append(f.people, at)
	}
	for node, dir := range n.Dirs {
		at := trust.Place{Node: node, Path: rootsConfig}
		if _, err := os.Lstat(filepath.Join(dir, rootsConfig)); f.users && err == nil && !slices.Contains(f.people, at) {
			f.people = append(f.people, at)
		}
	}
	if len(f.people) == 0 {
		return n, nil
	}
	slices.SortFunc(f.people, trust.Place.Compare)
	more, err := n.WithKubeconfigs(f.people)
	if err != nil {
		return nil, err
	}
	return &trustNodes{more}, nil
}

// homesPatience is how long homes may take to be looked at: they may be on a network
// that does not answer.
const homesPatience = 2 * time.Second

// copies says what people must know who have copies of what is renewed.
func copies(n *trustNodes, items []*renew.Item, people []trust.Place) []string {
	ofPeople := func(i *renew.Item) bool {
		base := path.Base(i.Certificate.Path)
		return i.Kind == renew.Kubeconfig && i.Old != nil && (base == "admin.conf" || base == "super-admin.conf")
	}
	at := slices.IndexFunc(items, ofPeople)
	if at < 0 {
		return nil
	}
	notes := []string{fmt.Sprintf("copies of %s elsewhere keep the old certificate, which is good until %s: Kubernetes takes none back", items[at].ID(), items[at].Old.NotAfter.UTC().Format(time.DateOnly))}
	found := make(chan []string, 1)
	go func() { found <- copiesElsewhere(n, items, people) }()
	select {
	case more := <-found:
		return append(notes, more...)
	case <-time.After(homesPatience):
		return append(notes, "homes do not answer: whether they hold copies was not looked at")
	}
}

// maxHomes bounds in how many homes copies are looked for.
const maxHomes = 1000

// copiesElsewhere are the kubeconfigs in homes that hold an old certificate of a
// renewed one and are not renewed with it. They are looked at and never written: a
// folder of somebody else's may turn into a link at any moment.
func copiesElsewhere(n *trustNodes, items []*renew.Item, people []trust.Place) []string {
	var notes []string
	for node, dir := range n.Dirs {
		homes, _ := filepath.Glob(filepath.Join(dir, "home", "*"))
		homes = append(homes[:min(len(homes), maxHomes):min(len(homes), maxHomes)], filepath.Join(dir, "root"))
		for _, home := range homes {
			file := "/" + filepath.ToSlash(strings.TrimPrefix(filepath.Join(home, ".kube/config"), strings.TrimSuffix(dir, "/")+"/"))
			at := trust.Place{Node: node, Path: file}
			if slices.Contains(people, at) {
				continue
			}
			if i := copyOf(n, at, items); i != nil {
				notes = append(notes, fmt.Sprintf("%s is a copy of %s and keeps the old certificate, good until %s: --kubeconfigs %s renews it too", at, i.Name, i.Old.NotAfter.UTC().Format(time.DateOnly), file))
			}
		}
	}
	slices.Sort(notes)
	return notes
}

// copyOf is the item whose old certificate a kubeconfig holds; nil where it is none's.
func copyOf(n *trustNodes, at trust.Place, items []*renew.Item) *renew.Item {
	content, err := layout.ReadFile(n.Dirs[at.Node], at.Path)
	if err != nil {
		return nil
	}
	k, materials, _ := layout.ParseKubeconfig(at, content.Data)
	for _, m := range materials {
		leaf := m.Leaf()
		i := slices.IndexFunc(items, func(i *renew.Item) bool {
			return leaf != nil && m.Place == k.Certificate && i.Kind == renew.Kubeconfig && i.Old != nil && i.Old.Equal(leaf)
		})
		if i >= 0 {
			return items[i]
		}
	}
	return nil
}
