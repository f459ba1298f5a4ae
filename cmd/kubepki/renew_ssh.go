package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/reach"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// sshFlags are those of renew across nodes over SSH.
type sshFlags struct {
	targets, trusted, nodes            []string
	hosts                              string
	identity, knownHosts, config, jump string
	command, root                      string
	sudo, skipDown                     bool
	timeout                            time.Duration
	parallel                           int
	password                           func(prompt string) ([]byte, error) // nil: nobody is asked
	parsed                             []reach.Target
	flags                              *pflag.FlagSet
	restarts                           bool // keep other restarts of the nodes away
}

func (o *sshFlags) add(f *pflag.FlagSet) {
	o.flags = f
	f.StringArrayVar(&o.targets, "ssh", nil, "a node that is reached over SSH, as [NAME=][USER@]HOST[:PORT]; repeatable")
	f.StringVar(&o.hosts, "ssh-hosts", "", "file of such nodes, one a line, with the word trusted after those of --ssh-trust")
	f.StringSliceVar(&o.trusted, "ssh-trust", nil, "nodes whose own word counts for what they are: control planes and etcd members that hold no authority's key")
	f.StringSliceVar(&o.nodes, "nodes", nil, "with --ssh: renew on these nodes alone; the others tell and sign")
	f.StringVar(&o.identity, "ssh-identity", "", "file of the private key to log in with (default: those of ssh-agent, ~/.ssh/config, and ~/.ssh/id_*)")
	f.StringVar(&o.knownHosts, "ssh-known-hosts", "", "file of host keys (default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts)")
	f.StringVar(&o.config, "ssh-config", "", "file like ~/.ssh/config, which is the default; none reads none")
	f.StringVar(&o.jump, "ssh-jump", "", "host to go over, as [USER@]HOST[:PORT]; several with commas between them")
	f.StringVar(&o.command, "ssh-command", "", "path of the kubepki that is installed on the nodes (default: the same program, else a copy of this one)")
	f.StringVar(&o.root, "ssh-root", "", "folder on the nodes that stands for their / (default /)")
	f.BoolVar(&o.sudo, "sudo", false, "with --ssh: run as root on the nodes, by sudo without a password")
	f.BoolVar(&o.skipDown, "ssh-skip-down", false, "go on without nodes that cannot be reached; the exit code is 1 all the same")
	f.DurationVar(&o.timeout, "ssh-timeout", 30*time.Second, "how long a node may take to log us in; four times that for each answer")
	f.IntVar(&o.parallel, "ssh-parallel", 10, "how many workers are renewed at once; control planes go one at a time")
}

// on tells that nodes are reached over SSH.
func (o *sshFlags) on() bool { return len(o.targets) > 0 || o.hosts != "" }

// stray refuses flags that would not be heeded: whoever gives --nodes means to spare the
// others.
func (o *sshFlags) stray() error {
	if o.on() {
		return nil
	}
	var err error
	o.flags.Visit(func(f *pflag.Flag) {
		if f.Name == "nodes" || f.Name == "sudo" || strings.HasPrefix(f.Name, "ssh-") {
			err = cmp.Or(err, usagef("--%s: goes with --ssh or --ssh-hosts", f.Name))
		}
	})
	return err
}

// check refuses flags of what is done on the node alone.
func (o *sshFlags) check(all *renewOptions) error {
	switch {
	case all.layout != "auto" && all.layout != "":
		return usagef("--layout: does not go with --ssh: each node finds out its own")
	case all.kept.backups:
		return usagef("--backups: does not go with --ssh: run it on the node, as in: ssh HOST sudo kubepki renew --backups")
	case all.kept.undo != "" && len(all.roots) > 0:
		return usagef("--undo: for folders and for nodes over SSH apart: give --root or --ssh")
	case all.kept.undo != "" && all.restart.on:
		return usagef("--restart: does not go with --undo: afterwards, on each node: kubepki node restart --stale")
	case all.plan.users || len(all.plan.kubeconfigs) > 0:
		return usagef("--users, --kubeconfigs: do not go with --ssh: homes are looked at on the node alone: run kubepki renew there")
	case all.restart.on && o.root != "":
		return usagef("--restart: does not go with --ssh-root: what runs there reads its own files")
	case all.force && all.kept.undo == "":
		return usagef("--force: goes with --ssh for --undo alone: what is wrong then that is right now is taken back on each node")
	}
	return nil
}

// parse reads the targets, and what goes with them.
func (o *sshFlags) parse(s streams, local []string) error {
	if o.hosts != "" {
		data, err := os.ReadFile(o.hosts)
		if err != nil {
			return fmt.Errorf("--ssh-hosts: %w", err)
		}
		if o.parsed, err = reach.ParseInventory(data); err != nil {
			return usagef("--ssh-hosts: %s: %w", o.hosts, err)
		}
	}
	for _, text := range o.targets {
		t, err := reach.ParseTarget(text)
		if err != nil {
			return usagef("--ssh %w", err)
		}
		if slices.ContainsFunc(o.parsed, func(p reach.Target) bool { return p.Name == t.Name }) {
			return usagef("--ssh: two nodes are called %q: use NAME=HOST", t.Name)
		}
		o.parsed = append(o.parsed, t)
	}
	for _, name := range slices.Concat(o.trusted, o.nodes) {
		if !slices.ContainsFunc(o.parsed, func(t reach.Target) bool { return t.Name == name }) && !slices.Contains(local, name) {
			return usagef("--ssh-trust, --nodes: no node is called %q", name)
		}
	}
	for i := range o.parsed {
		o.parsed[i].Trusted = o.parsed[i].Trusted || slices.Contains(o.trusted, o.parsed[i].Name)
	}
	if o.parallel < 1 || o.timeout <= 0 {
		return usagef("--ssh-parallel, --ssh-timeout: must be more than nothing")
	}
	if f, ok := s.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.password = func(prompt string) ([]byte, error) {
			fmt.Fprint(s.err, prompt)
			defer fmt.Fprintln(s.err)
			return term.ReadPassword(int(f.Fd()))
		}
	}
	return nil
}

// login is how nodes are reached in one run.
type login struct {
	*sshFlags
	reacher *reach.Reacher
	program *reach.Program
}

func (o *sshFlags) login() (*login, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, err := reach.New(reach.Settings{Config: o.config, KnownHosts: o.knownHosts, Identity: o.identity, Jump: o.jump, Agent: os.Getenv("SSH_AUTH_SOCK"), Ask: o.password}, o.timeout)
	if err != nil {
		return nil, err
	}
	return &login{o, r, &reach.Program{Name: "kubepki", Path: program, Remove: "--remove-itself"}}, nil
}

// Times that a copy of the program, and an answer, may take, in those of a login: a
// copy is some thirty megabytes.
var copyTimes, answerTimes = 20.0, 4.0

func (l *login) times(n float64) time.Duration { return time.Duration(n * float64(l.timeout)) }

// connect logs in at a node and runs kubepki there.
func (l *login) connect(ctx context.Context, t reach.Target) (*remote.Client, error) {
	host, err := l.reacher.Dial(ctx, t)
	if err != nil {
		return nil, err
	}
	args := []string{"renew", "--serve-stdio"}
	if l.root != "" {
		args = append(args, "--root", l.root)
	}
	starting, cancel := context.WithTimeout(ctx, l.times(copyTimes))
	defer cancel()
	p, err := l.program.Run(starting, host, reach.Options{Sudo: l.sudo, Command: l.command, Args: args})
	if err != nil {
		host.Close()
		return nil, err
	}
	client, err := remote.Connect(ctx, t.Name, versionText(), p.Out, p.In, host.Close, l.times(answerTimes))
	if err != nil {
		return nil, l.notStarted(t, p, err)
	}
	client.LocksRestarts = l.restarts
	return client, nil
}

// notStarted adds what the node's shell said.
func (l *login) notStarted(t reach.Target, p *reach.Process, err error) error {
	_ = p.Wait() // it was hung up; all that it said is there then
	talk := p.Talk()
	hint := fmt.Sprintf("see that this works: ssh %s %s version", t, cmp.Or(l.command, "kubepki"))
	switch {
	case strings.Contains(talk, "sudo:"):
		hint = "sudo must ask for no password there: see that this works: ssh " + t.String() + " sudo -n true"
	case errors.As(err, new(*remote.CutError)) && talk == "" && l.command != "":
		hint += "; --ssh-command must name a kubepki of this version"
	}
	if talk != "" {
		err = fmt.Errorf("%w: it said: %s", err, oneLine(errors.New(talk)))
	}
	return advise(err, "%s", hint)
}

// far logs in at all nodes at once, and reads them. One that cannot be reached stops
// all, unless those are to be skipped; a host key that is not the known one always does.
func (l *login) far(ctx context.Context, s streams, mend bool) (nodes []*remote.FarNode, down []string, err error) {
	type result struct {
		node *remote.FarNode
		err  error
	}
	var errs []error
	progress := newNodeProgress(s, "nodes read", len(l.parsed))
	results := apply.AtOnce(l.parsed, max(l.parallel, 16), func(t reach.Target) result {
		defer progress.one()
		n, err := l.read(ctx, t, mend)
		return result{n, err}
	})
	progress.end()
	for i, r := range results {
		switch t := l.parsed[i]; {
		case r.err == nil:
			nodes = append(nodes, r.node)
			if r.node.Told.Mended > 0 {
				fmt.Fprintf(s.err, "%s: an interrupted run was mended\n", t.Name)
			}
			for _, said := range r.node.Told.Said {
				fmt.Fprintf(s.err, "%s: %s\n", t.Name, report.Plain(said))
			}
		case l.skipDown && !errors.Is(r.err, reach.ErrChangedHost) && !errors.Is(r.err, reach.ErrUnknownHost):
			down = append(down, t.Name)
			fmt.Fprintf(s.err, "kubepki: warning: %s is left out: %s\n", t.Name, report.Plain(oneLine(r.err)))
		default:
			errs = append(errs, r.err)
		}
	}
	if len(errs) == 0 && ctx.Err() == nil {
		return nodes, down, nil
	}
	for _, n := range nodes {
		n.Client.Close()
	}
	err = errors.Join(append(errs, ctx.Err())...)
	if !l.skipDown && len(errs) < len(l.parsed) {
		err = advise(err, "nothing was changed on any node; --ssh-skip-down goes on without nodes that are down")
	}
	return nil, nil, err
}

func (l *login) read(ctx context.Context, t reach.Target, mend bool) (*remote.FarNode, error) {
	client, err := l.connect(ctx, t)
	if err != nil {
		return nil, err
	}
	told, err := client.Read(ctx, mend)
	if err != nil {
		client.Close()
		return nil, err
	}
	if slices.ContainsFunc(told.Node.NotSeen, func(n trust.NotSeen) bool { return n.Denied }) {
		client.Close()
		help := "log in as root, or give --sudo"
		if l.sudo {
			help = "sudo there must make us root"
		}
		return nil, advise(fmt.Errorf("%s: its files are for root alone", t.Name), "%s", help)
	}
	return &remote.FarNode{
		Standing: remote.Standing{Name: t.Name, Addresses: l.reacher.Addresses(t), Vouched: t.Trusted, Proven: told.Proven},
		Client:   client, Told: told,
		Redial: func(ctx context.Context) (*remote.Client, error) { return l.connect(ctx, t) },
	}, nil
}

// goOn is the command that does what is left, on some nodes.
func goOn(c *cobra.Command, ids, nodes []string) string {
	words := []string{"kubepki", "renew"}
	for _, id := range ids {
		words = append(words, shellWord(id))
	}
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "nodes" {
			return
		}
		switch v := f.Value.(type) {
		case pflag.SliceValue:
			for _, one := range v.GetSlice() {
				words = append(words, "--"+f.Name+"="+shellWord(one))
			}
		default:
			if f.Value.Type() == "bool" && f.Value.String() == "true" {
				words = append(words, "--"+f.Name)
				return
			}
			words = append(words, "--"+f.Name+"="+shellWord(f.Value.String()))
		}
	})
	return strings.Join(append(words, "--nodes="+strings.Join(nodes, ",")), " ")
}

// shellWord is a text as one word of a command line.
func shellWord(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./-_", r))
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// nodeProgress is one line on a terminal that says how far the nodes are.
type nodeProgress struct {
	mu   sync.Mutex
	w    io.Writer // nil: nobody looks
	what string
	all  int
	done int
}

func newNodeProgress(s streams, what string, all int) *nodeProgress {
	p := &nodeProgress{what: what, all: all}
	if isTerminal(s.err) {
		p.w = s.err
	}
	return p
}

func (p *nodeProgress) one() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.w != nil {
		fmt.Fprintf(p.w, "\r%d of %d %s", p.done, p.all, p.what)
	}
}

func (p *nodeProgress) end() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
