package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewExternal are the flags of renew for authorities that sign elsewhere.
type renewExternal struct {
	csrOnly      bool
	csrDir       string
	certificates []string
	keys         caKeyFlags
	api          renewAPI

	// What a run that takes certificates in leaves undone.
	outstanding []string
	refused     []refusedItem
}

func (e *renewExternal) add(f *pflag.FlagSet) {
	f.BoolVar(&e.csrOnly, "csr-only", false, "make keys and requests for an authority that signs elsewhere, and change nothing else")
	f.StringVar(&e.csrDir, "csr-dir", "", "with --csr-only: folder of this machine for copies of the requests")
	f.StringArrayVar(&e.certificates, "certificates", nil, "take in what was signed elsewhere: a FILE, a folder, or - for standard input; repeatable")
	e.keys.add(f)
	e.api.add(f, 5*time.Minute)
}

// elsewhere tells that no key of an authority is used here.
func (e *renewExternal) elsewhere() bool { return e.csrOnly || e.takesIn() || e.api.on() }

// takesIn tells that what is renewed is what came back, so that nothing need be named.
func (e *renewExternal) takesIn() bool { return len(e.certificates) > 0 }

// check refuses flags that do not go together.
func (e *renewExternal) check(flags *renewOptions) error {
	var ways []string
	for flag, given := range map[string]bool{"--csr-only": e.csrOnly, "--certificates": e.takesIn(), "--signer-kubeconfig": e.api.on(), "--ca-key": len(e.keys.keys) > 0} {
		if given {
			ways = append(ways, flag)
		}
	}
	slices.Sort(ways)
	switch {
	case len(ways) > 1:
		return usagef("%s: each is another way to sign: give one of them", strings.Join(ways, ", "))
	case len(ways) > 0 && flags.ssh.on():
		return usagef("%s: does not go with --ssh: run it on the nodes, or on copies of them with --root", ways[0])
	case e.csrDir != "" && !e.csrOnly:
		return usagef("--csr-dir: is for --csr-only")
	case len(ways) > 0 && flags.kept.given():
		return usagef("%s: does not go with --undo and --backups", ways[0])
	case e.takesIn() && (flags.all || flags.plan.due):
		return usagef("--all, --due: do not go with --certificates, which takes in all that came back")
	case e.takesIn() && flags.reuseKey:
		return usagef("--reuse-key: does not go with --certificates: each is taken in with the key that it was signed for")
	}
	return e.api.check()
}

// run makes what an authority elsewhere is asked for, of items that were planned.
func (e *renewExternal) run(ctx context.Context, o *renewOptions, s streams, n *trustNodes, items []*renew.Item, before *check.Result, at time.Time, named bool) error {
	items = eachFileOnce(items)
	if e.api.on() {
		return e.api.run(ctx, o, s, n, items, before, at, named)
	}
	waiting, asks, err := askAll(ctx, s, n, items, (*renew.Item).Request)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := n.Stage(asks, waiting); err != nil {
			return err
		}
		if err := e.copyRequests(ctx, items, asks); err != nil {
			return err
		}
	}
	return e.answerRequests(o, s, n, items, asks)
}

// eachFileOnce drops items that stand for a file a second time, under another name.
func eachFileOnce(items []*renew.Item) []*renew.Item {
	var all []*renew.Item
	for _, i := range items {
		if !slices.ContainsFunc(all, func(o *renew.Item) bool { return o.Certificate == i.Certificate }) {
			all = append(all, i)
		}
	}
	return all
}

// askAll makes a key and a request for each item, or takes those that wait already, so
// that whoever runs it again asks for the same. It returns what waited before.
func askAll(ctx context.Context, s streams, n *trustNodes, items []*renew.Item, request func(*renew.Item, crypto.Signer) (*x509.CertificateRequest, error)) ([]*apply.Pending, []apply.Ask, error) {
	waiting, err := n.Pending()
	if err != nil {
		return nil, nil, err
	}
	type made struct {
		apply.Ask
		again bool // with the key of an earlier run
		err   error
	}
	var asks []apply.Ask
	var errs []error
	inOrder(ctx, items, func(i *renew.Item) made {
		m := made{Ask: apply.Ask{Place: i.Certificate}}
		p := apply.PendingOf(waiting, i.Certificate)
		var key crypto.Signer
		switch {
		case i.Reused():
			key, m.err = i.MakeKey()
		case p != nil && p.Key != nil && !p.Settled(i) && issue.AlgorithmOf(p.Key.Public()) == i.Algorithm:
			key, m.again = p.Key, true
			m.Key = key
		default:
			key, m.err = i.MakeKey()
			m.Key = key
		}
		if m.err == nil {
			m.Request, m.err = request(i, key)
		}
		if m.err == nil && p != nil && p.Request != nil && renew.SameRequest(p.Request, m.Request) {
			m.Request = p.Request // its signature is another, and nothing else
		}
		return m
	}, func(m made) {
		if m.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Place, m.err))
			return
		}
		if m.again {
			fmt.Fprintf(s.err, "%s: goes on with the key that waits since an earlier run\n", report.Plain(m.Place.String()))
		}
		asks = append(asks, m.Ask)
	})
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return waiting, asks, errors.Join(errs...)
}

// requestFile is the name of a request in --csr-dir.
func requestFile(i *renew.Item) string {
	return strings.TrimLeft(strings.NewReplacer("/", "_", ":", "_").Replace(i.ID()), "_.") + ".csr"
}

// copyRequests puts the requests, and no key, where they can be sent from.
func (e *renewExternal) copyRequests(ctx context.Context, items []*renew.Item, asks []apply.Ask) error {
	if e.csrDir == "" {
		return nil
	}
	tx, err := begin(ctx, e.csrDir)
	if err != nil {
		return err
	}
	for n, a := range asks {
		name := "/" + requestFile(items[n])
		text := issue.EncodeRequest(a.Request)
		if err := putRequest(tx, e.csrDir, name, text); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// putRequest writes a request, over an older one only.
func putRequest(tx *layout.Transaction, dir, name string, text []byte) error {
	old, err := layout.ReadFile(dir, name)
	var failed *layout.ReadError
	switch {
	case errors.As(err, &failed) && failed.State == trust.Missing:
		return tx.Write(name, text, 0o644)
	case err != nil:
		return fmt.Errorf("--csr-dir %s: %w", dir, err)
	case string(old.Data) == string(text):
		return nil
	}
	if _, err := issue.ParseRequest(old.Data); err != nil {
		return advise(fmt.Errorf("%s is there, and is no request", filepath.Join(dir, name)), "name another folder for --csr-dir")
	}
	return tx.Replace(name, old.Data, text)
}

// requestItem is a request in machine output: all that who signs has to know.
type requestItem struct {
	ID      string   `json:"id"`
	For     string   `json:"for"` // the file that the certificate will stand in
	Why     []string `json:"why"`
	Request string   `json:"request"` // file of the node
	Copy    string   `json:"copy,omitempty"`
	// Authority is the subject of the authority that must sign, AuthorityFile its
	// certificate on the node, AuthoritySHA256 the digest of that.
	Authority       string   `json:"authority"`
	AuthorityFile   string   `json:"authorityFile"`
	AuthoritySHA256 string   `json:"authoritySHA256"`
	Subject         string   `json:"subject"`
	Names           []string `json:"names"`
	KeyUsages       []string `json:"keyUsages"`
	ExtendedUsages  []string `json:"extendedKeyUsages"`
	// Days is the life that is wanted, NotAfter its end if it is signed now.
	Days     int       `json:"days"`
	NotAfter time.Time `json:"notAfter"`
	Key      string    `json:"key"`
	KeptKey  bool      `json:"keptKey"`
	PEM      string    `json:"pem"`
	Warnings []string  `json:"warnings"`
}

type requestsDocument struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	DryRun     bool          `json:"dryRun"`
	Items      []requestItem `json:"items"`
}

// answerRequests says on stdout what is to be signed, by whom, for what and how long.
func (e *renewExternal) answerRequests(o *renewOptions, s streams, n *trustNodes, items []*renew.Item, asks []apply.Ask) error {
	d := requestsDocument{APIVersion: report.APIVersion, Kind: "RenewalRequests", DryRun: o.dryRun, Items: []requestItem{}}
	var rows [][]string
	for at, i := range items {
		r := e.describe(i, asks[at])
		d.Items = append(d.Items, r)
		rows = append(rows, []string{report.Plain(r.ID), report.Plain(r.Authority), strings.Join(slices.Concat(r.KeyUsages, r.ExtendedUsages), ", "), fmt.Sprintf("%d days", r.Days), report.Plain(r.Subject), report.Plain(e.where(r, n.Dirs[i.Node]))})
		for _, w := range r.Warnings {
			fmt.Fprintf(s.err, "kubepki: warning: %s: %s\n", report.Plain(r.ID), report.Plain(w))
		}
	}
	switch o.output {
	case "table":
	case "name":
		for _, r := range d.Items {
			fmt.Fprintln(s.out, report.Plain(r.ID))
		}
		return nil
	default:
		return report.Document(s.out, o.output, d)
	}
	if err := report.Table(s.out, []string{"CREDENTIAL", "TO BE SIGNED BY", "USAGES", "LIFE", "SUBJECT", "REQUEST"}, rows); err != nil {
		return err
	}
	if !o.dryRun {
		fmt.Fprintln(s.err, "the keys stay on the node; nothing in place was changed. Once signed: kubepki renew --certificates FILE-OR-FOLDER")
	}
	return nil
}

func (e *renewExternal) where(r requestItem, dir string) string {
	if r.Copy != "" {
		return r.Copy
	}
	return filepath.Join(dir, r.Request)
}

func (e *renewExternal) describe(i *renew.Item, a apply.Ask) requestItem {
	ca := i.Authority().Certificate
	r := requestItem{
		ID: i.ID(), For: i.Certificate.Path, Why: i.Why, Request: apply.RequestPath(i.Certificate),
		Authority: trust.SubjectText(ca.RawSubject), AuthorityFile: i.Issuer.Path, AuthoritySHA256: bundle.Fingerprint(ca),
		Subject: trust.SubjectText(a.Request.RawSubject), Names: i.Names(), KeyUsages: i.KeyUsages(a.Request.PublicKey), ExtendedUsages: []string{},
		Days: int(i.Life() / (24 * time.Hour)), NotAfter: i.NotAfter.UTC(), Key: string(issue.AlgorithmOf(a.Request.PublicKey)), KeptKey: i.Reused(),
		PEM: string(issue.EncodeRequest(a.Request)), Warnings: append([]string{}, i.Warnings...),
	}
	for _, u := range i.Usages {
		r.ExtendedUsages = append(r.ExtendedUsages, issue.UsageName(u))
	}
	if e.csrDir != "" {
		r.Copy = filepath.Join(e.csrDir, requestFile(i))
	}
	return r
}

// sayPending warns of keys that wait for certificates of what is renewed now.
func sayPending(s streams, n *trustNodes, items []*renew.Item) {
	waiting, err := n.Pending()
	if err != nil {
		fmt.Fprintf(s.err, "kubepki: warning: what waits for certificates signed elsewhere cannot be read: %s\n", report.Plain(err.Error()))
		return
	}
	for _, i := range items {
		if p := apply.PendingOf(waiting, i.Certificate); p != nil && !p.Settled(i) {
			request := filepath.Join(n.Dirs[i.Node], apply.RequestPath(i.Certificate))
			fmt.Fprintf(s.err, "kubepki: warning: %s: a request waits for its certificate, %s: kubepki renew --certificates takes that in, and what is made now goes then; to give it up: rm %s.*\n",
				report.Plain(i.ID()), report.Plain(request), report.Plain(strings.TrimSuffix(request, ".csr")))
		}
	}
}
