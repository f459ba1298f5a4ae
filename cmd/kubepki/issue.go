package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type issueOptions struct {
	from   authorityFlags
	id     identityFlags
	csr    string
	out    string
	stdout bool
	dryRun bool
}

func newIssueCommand(s streams) *cobra.Command {
	var o issueOptions
	c := &cobra.Command{
		Use:   "issue NAME",
		Short: "Issue one certificate from an authority of the folder, with a new key or for a request",
		Long: `Issue signs one certificate with an authority that stands in a node's folder, in
a bare folder of authorities, or in a file. It writes NAME.crt and NAME.key, or
with --csr NAME.crt alone, and never overwrites. stdout lists the files.

Roles: server (needs --san), client, peer (both), node (a kubelet's client
certificate: system:node:NAME in system:nodes) and user (--group names groups).

Of a request, subject, names and usages are granted as far as role and flags
allow; stderr says what is granted and what is left out. Requests to become an
authority, names of other kinds, unknown usages and weak keys are refused;
wildcards and privileged identities need a flag that says so. Below an
intermediate authority NAME.crt holds the chain.`,
		Example: `  # A server's certificate and key, signed by this node's cluster authority
  sudo kubepki issue registry --role server --san registry.example.test,10.0.0.5

  # A user in two groups, for 30 days, from a copy of a node
  kubepki issue jane --role user --group dev --group ops --validity 30d --root ./node

  # Sign a request with an authority in files
  kubepki issue web --csr web.csr --role server --authority ./tls/ca.crt

  # An etcd client
  kubepki issue backup --role client --authority etcd-ca --root ./node

  # As a filter
  kubepki issue --csr - --stdout --role client --authority ca.crt < web.csr > web.crt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args) },
	}
	f := c.Flags()
	o.from.add(f)
	o.id.add(f)
	f.StringVar(&o.csr, "csr", "", "sign this request (PEM; - is standard input) instead of making a key")
	f.StringVar(&o.out, "out", ".", "folder to write to; with --csr, - is standard output")
	f.BoolVar(&o.stdout, "stdout", false, "with --csr: print the certificate instead of writing it")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be granted, and write nothing")
	return c
}

func (o *issueOptions) run(c *cobra.Command, s streams, args []string) error {
	name, err := o.check(c, args)
	if err != nil {
		return err
	}
	validity, err := parseLife("--validity", o.id.validity)
	if err != nil {
		return err
	}
	public, asked, err := o.readRequest(s)
	if err != nil {
		return err
	}
	want, err := o.id.want(name, asked)
	if err != nil {
		return err
	}
	authority, err := o.chooseAuthority()
	if err != nil {
		return err
	}
	if err := o.refuseExisting(name); err != nil {
		return err // before a serial number is taken
	}
	key, public, err := o.ownKey(public, authority)
	if err != nil {
		return err
	}
	template := want.template(clock(), validity)
	if err := o.number(c.Context(), &template, authority); err != nil {
		return err
	}
	g, err := sign(template, public, authority, want)
	if err != nil {
		return err
	}
	if err := o.write(c.Context(), s, name, g.chain, key); err != nil {
		return err
	}
	g.say(s, o.dryRun)
	return nil
}

// ownKey returns the key to certify: that of the request, whose private half
// is not here, or a new one.
func (o *issueOptions) ownKey(requested crypto.PublicKey, a *signer) (crypto.Signer, crypto.PublicKey, error) {
	if requested != nil {
		if trust.SameKey(a.Certificate.PublicKey, requested) {
			return nil, nil, fmt.Errorf("--csr %s: the request is made with the authority's own key %s", o.csr, a.path)
		}
		return nil, requested, nil
	}
	algorithm, err := issue.ParseAlgorithm(o.id.algorithm)
	if err != nil {
		return nil, nil, usagef("--key-algorithm: %w", err)
	}
	key, err := issue.GenerateKey(algorithm)
	if err != nil {
		return nil, nil, err
	}
	return key, key.Public(), nil
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@:+-]*$`)

// check refuses flags that contradict each other, and returns NAME.
func (o *issueOptions) check(c *cobra.Command, args []string) (string, error) {
	if err := o.from.check(c.Flags()); err != nil {
		return "", err
	}
	if o.out == "-" {
		o.stdout = true
	}
	name := ""
	switch {
	case len(args) == 1:
		name = args[0]
	case o.csr == "":
		return "", usagef("NAME is missing: kubepki issue NAME --role ...")
	case o.csr != "-":
		name = strings.TrimSuffix(filepath.Base(o.csr), filepath.Ext(o.csr))
	case !o.stdout:
		return "", usagef("NAME is missing: it names the file, as the request comes from standard input")
	}
	switch {
	case o.stdout && o.csr == "":
		return "", usagef("--stdout is for --csr: a new key is written to a file alone")
	case o.stdout && c.Flags().Changed("out") && o.out != "-":
		return "", usagef("--stdout and --out %s contradict each other: give one of them", o.out)
	case o.csr != "" && c.Flags().Changed("key-algorithm"):
		return "", usagef("--key-algorithm is for new keys, and --csr brings its own")
	case o.out == "":
		return "", usagef("--out names no folder")
	case name != "" && !fileName.MatchString(name):
		return "", advise(usagef("NAME %q cannot name a file: use letters, digits and . _ @ : + -", name), "any common name can be given with --cn")
	}
	return name, nil
}

// readRequest reads and checks the request; nil without --csr.
func (o *issueOptions) readRequest(s streams) (crypto.PublicKey, *issue.Asked, error) {
	if o.csr == "" {
		return nil, nil, nil
	}
	data, err := readInput(s, o.csr)
	if err != nil {
		return nil, nil, fmt.Errorf("--csr: %w", err)
	}
	r, err := issue.ParseRequest(data)
	if err != nil {
		return nil, nil, fmt.Errorf("--csr %s: %w", o.csr, err)
	}
	asked, err := issue.ReadRequest(r)
	if err == nil {
		err = asked.Check(r)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("--csr %s: %w", o.csr, err)
	}
	return r.PublicKey, asked, nil
}

// chooseAuthority: a kubelet's certificate comes from the kubelets' own
// authority where there is one.
func (o *issueOptions) chooseAuthority() (*signer, error) {
	if isAuthorityFile(o.from.authority) {
		return o.from.choose(&folder{})
	}
	all, err := o.from.readFolder()
	if err != nil {
		return nil, err
	}
	if o.id.role == "node" {
		return o.from.choose(all, catalog.KubeletCA, catalog.ClusterCA)
	}
	return o.from.choose(all, catalog.ClusterCA)
}

func (o *issueOptions) refuseExisting(name string) error {
	switch {
	case o.stdout:
		return nil
	case o.csr != "":
		return refuseExisting(o.out, name+".crt")
	}
	return refuseExisting(o.out, name+".crt", name+".key")
}

// number takes the serial from openssl's file where the authority has one.
func (o *issueOptions) number(ctx context.Context, t *issue.Template, a *signer) error {
	file := serialFile(a.path)
	if file == "" || o.dryRun {
		return nil
	}
	if !a.Certificate.IsCA || clock().After(a.Certificate.NotAfter) {
		return nil // signing will refuse: spare the number
	}
	var err error
	t.Serial, err = takeSerial(ctx, file)
	return err
}

// granted is what was signed, and what there is to say about it.
type granted struct {
	chain []*x509.Certificate
	by    *signer
	want  *wanted
	// capped tells that the certificate ends with its authority, before the
	// validity asked for.
	capped bool
}

func sign(t issue.Template, public crypto.PublicKey, a *signer, w *wanted) (*granted, error) {
	c, err := issue.Sign(t, public, a.Authority)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	return &granted{
		chain: append([]*x509.Certificate{c}, a.Chain...), by: a, want: w,
		capped: c.NotAfter.Before(t.NotAfter.Truncate(time.Second)),
	}, nil
}

// say tells on stderr what was granted, and what of the request was not.
func (g *granted) say(s streams, dryRun bool) {
	c := g.chain[0]
	end := c.NotAfter.Format(time.RFC3339)
	if g.capped {
		fmt.Fprintf(s.err, "kubepki: warning: ends at %s with its authority %s, before the validity asked for\n", end, g.by.name)
	}
	what := []string{c.Subject.String()}
	if all := g.want.names.all(); len(all) > 0 {
		what = append(what, "names "+strings.Join(all, ", "))
	}
	for _, u := range c.ExtKeyUsage {
		what = append(what, issue.UsageName(u))
	}
	did, by := "granted", g.by.path
	if dryRun {
		did = "would grant"
	}
	if g.by.name != g.by.path {
		by = g.by.name + " (" + g.by.path + ")"
	}
	fmt.Fprintf(s.err, "%s: %s; until %s, by %s\n", did, report.Plain(strings.Join(what, "; ")), end, by)
	for _, l := range g.want.leftOut {
		fmt.Fprintf(s.err, "left out: %s\n", report.Plain(l))
	}
}

// write writes certificate and key together, or prints the certificate.
func (o *issueOptions) write(ctx context.Context, s streams, name string, chain []*x509.Certificate, key crypto.Signer) error {
	certificate := trust.EncodeCertificates(chain...)
	if o.stdout {
		if o.dryRun {
			return nil
		}
		_, err := s.out.Write(certificate)
		return err
	}
	files := []newFile{{name + ".crt", certificate, 0o644}}
	if key != nil {
		data, err := issue.EncodePrivateKey(key)
		if err != nil {
			return err
		}
		files = append(files, newFile{name + ".key", data, 0o600})
	}
	if err := writeNew(ctx, o.out, files, o.dryRun); err != nil {
		return err
	}
	for _, f := range files {
		if o.dryRun {
			fmt.Fprintf(s.err, "would write %s\n", filepath.Join(o.out, f.name))
		} else {
			fmt.Fprintln(s.out, filepath.Join(o.out, f.name))
		}
	}
	return nil
}

// newFile is a file that is to be made.
type newFile struct {
	name string
	data []byte
	mode fs.FileMode
}

func refuseExisting(dir string, names ...string) error {
	for _, n := range names {
		if path := filepath.Join(dir, n); exists(path) {
			return advise(fmt.Errorf("%s exists already", path), "kubepki never overwrites: choose another name or folder, or move it away")
		}
	}
	return nil
}

// writeNew makes files in a folder, all or none, and never overwrites one.
func writeNew(ctx context.Context, dir string, files []newFile, dryRun bool) error {
	for _, f := range files {
		if err := refuseExisting(dir, f.name); err != nil {
			return err
		}
	}
	if dryRun {
		return nil
	}
	t, err := begin(ctx, dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := t.Write("/"+f.name, f.data, f.mode); err != nil {
			return errors.Join(err, t.Rollback())
		}
	}
	return t.Commit()
}
