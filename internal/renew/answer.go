package renew

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Answer is a certificate that was signed elsewhere, as judged for an [Item].
type Answer struct {
	// Chain is what is written: the leaf, and the authorities that it must carry.
	Chain []*x509.Certificate
	// Faults are why it is not taken in, each a sentence that can be sent to who
	// signed it; none: it is what is wanted.
	Faults []string
	// Notes tell in what it differs and is taken in all the same.
	Notes []string
}

// Judge judges a certificate that was signed elsewhere, with whatever came along
// among which the authorities between are. Everything that is missing or weaker is
// a fault; more names and another life are the authority's to decide, and notes.
// The key is the caller's to compare.
func (i *Item) Judge(leaf *x509.Certificate, others []*x509.Certificate, at time.Time) Answer {
	a := Answer{Chain: []*x509.Certificate{leaf}}
	a.rights(leaf)
	a.subject(i, leaf)
	a.names(i, leaf)
	a.usages(i, leaf)
	a.life(i, leaf, at)
	a.chain(i, leaf, others, at)
	return a
}

func (a *Answer) fault(format string, args ...any) {
	a.Faults = append(a.Faults, fmt.Sprintf(format, args...))
}

func (a *Answer) note(format string, args ...any) {
	a.Notes = append(a.Notes, fmt.Sprintf(format, args...))
}

// rights are those that no leaf may have, and what makes a certificate worthless.
func (a *Answer) rights(leaf *x509.Certificate) {
	if leaf.IsCA {
		a.fault("it is an authority (basicConstraints CA:TRUE), asked was a leaf: whoever has its key could sign for the whole cluster")
	}
	if leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		a.fault("it may sign certificates or revocation lists (keyUsage keyCertSign, cRLSign): ask for a leaf without these")
	}
	if trust.WeakSignature(leaf) {
		a.fault("it is signed with %s, which every component refuses: ask for SHA-256", leaf.SignatureAlgorithm)
	}
	if err := issue.CheckPublicKey(leaf.PublicKey); err != nil {
		a.fault("%s", err)
	}
	if slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		a.note("it is for any usage (anyExtendedKeyUsage)")
	}
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// subject compares whom the certificate is for: name and groups are what a
// component maps to a user. The other fields are decoration, which authorities drop.
func (a *Answer) subject(i *Item, leaf *x509.Certificate) {
	commonNames := 0
	for _, n := range leaf.Subject.Names {
		if n.Type.Equal(oidCommonName) {
			commonNames++
		}
	}
	switch {
	case commonNames > 1:
		a.fault("its subject has %d common names, of which programs take different ones", commonNames)
	case leaf.Subject.CommonName != i.Subject.CommonName:
		a.fault("its common name (CN) is %q, wanted is %q", leaf.Subject.CommonName, i.Subject.CommonName)
	}
	if have, want := sorted(leaf.Subject.Organization), sorted(i.Subject.Organization); !slices.Equal(have, want) {
		a.fault("its organizations (O), which are groups, are %q, wanted are %q", have, want)
	}
	want, err := subjectBytes(i)
	if len(a.Faults) == 0 && err == nil && !bytes.Equal(want, leaf.RawSubject) {
		if have := trust.SubjectText(leaf.RawSubject); have != trust.SubjectText(want) {
			a.note("its subject is %s, asked was %s: name and groups are the same", have, trust.SubjectText(want))
		}
	}
}

func subjectBytes(i *Item) ([]byte, error) {
	if i.rawSubject != nil {
		return i.rawSubject, nil
	}
	return asn1.Marshal(i.Subject.ToRDNSequence())
}

func sorted(all []string) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *Answer) names(i *Item, leaf *x509.Certificate) {
	want, have := newNames(i.DNSNames, i.Addresses, i.URIs, i.Emails), newNames(leaf.DNSNames, leaf.IPAddresses, leaf.URIs, leaf.EmailAddresses)
	missing := slices.DeleteFunc(slices.Clone(want), func(n string) bool { return slices.Contains(have, n) })
	more := slices.DeleteFunc(slices.Clone(have), func(n string) bool { return slices.Contains(want, n) })
	if len(missing) > 0 {
		a.fault("san-missing: it lacks the alternative names %s: ask that all names of the request are taken over", strings.Join(missing, ", "))
	}
	if len(more) > 0 {
		a.note("it holds names that were not asked for: %s", strings.Join(more, ", "))
	}
}

// newNames are names with their kinds, DNS names in small letters.
func newNames(dns []string, addresses []net.IP, uris []*url.URL, emails []string) []string {
	var all []string
	for _, n := range dns {
		all = append(all, "DNS:"+strings.ToLower(n))
	}
	for _, n := range addresses {
		all = append(all, "IP:"+n.String())
	}
	for _, n := range uris {
		all = append(all, "URI:"+n.String())
	}
	for _, n := range emails {
		all = append(all, "email:"+n)
	}
	return sorted(all)
}

func (a *Answer) usages(i *Item, leaf *x509.Certificate) {
	var missing []string
	for _, u := range i.Usages {
		if !slices.Contains(leaf.ExtKeyUsage, u) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
			missing = append(missing, issue.UsageName(u))
		}
	}
	switch {
	case len(missing) > 0 && len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		a.fault("usage-missing: it has no extended key usage at all, wanted is %s: the authority dropped it from the request: ask for a profile with extendedKeyUsage = %s", strings.Join(missing, ", "), strings.Join(missing, ", "))
	case len(missing) > 0:
		a.fault("usage-missing: it lacks the extended key usage %s: ask for a profile with extendedKeyUsage = %s", strings.Join(missing, ", "), strings.Join(usageNames(i.Usages), ", "))
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		a.fault("usage-missing: its key usage lacks digitalSignature, which each TLS handshake needs: ask for keyUsage = digitalSignature")
	}
	var more []string
	for _, u := range leaf.ExtKeyUsage {
		if !slices.Contains(i.Usages, u) && u != x509.ExtKeyUsageAny {
			more = append(more, issue.UsageName(u))
		}
	}
	if len(more) > 0 {
		a.note("it is good for more than was asked for: %s", strings.Join(more, ", "))
	}
}

func usageNames(all []x509.ExtKeyUsage) []string {
	var names []string
	for _, u := range all {
		names = append(names, issue.UsageName(u))
	}
	return names
}

// lifeTolerance is what two lives may differ by and be called the same.
const lifeTolerance = time.Hour

func (a *Answer) life(i *Item, leaf *x509.Certificate, at time.Time) {
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case at.After(leaf.NotAfter):
		a.fault("it expired at %s; this machine's clock says %s", end, at.UTC().Format(time.RFC3339))
	case at.Before(leaf.NotBefore):
		a.fault("it begins at %s; this machine's clock says %s: set the clock, or take it in then", leaf.NotBefore.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	case i.Old != nil && trust.SameKey(i.Old.PublicKey, leaf.PublicKey) && olderThan(leaf, i.Old):
		a.fault("it is older than the one that is in place, of the same key")
	case leaf.NotAfter.Before(i.NotAfter.Add(-lifeTolerance)):
		a.note("it ends at %s, asked was %s", end, i.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotAfter.After(i.NotAfter.Add(lifeTolerance)):
		a.note("it ends at %s, later than %s, which was asked for", end, i.NotAfter.UTC().Format(time.RFC3339))
	}
	if i.Old != nil && leaf.NotAfter.Before(i.Old.NotAfter.Add(-lifeTolerance)) && at.Before(leaf.NotAfter) {
		a.note("it ends before the one that is in place")
	}
}

// olderThan tells that a certificate begins and ends no later than another, and one
// of both earlier.
func olderThan(c, than *x509.Certificate) bool {
	later := c.NotBefore.After(than.NotBefore) || c.NotAfter.After(than.NotAfter)
	return !later && (c.NotBefore.Before(than.NotBefore) || c.NotAfter.Before(than.NotAfter))
}

// chain finds the way to an anchor. The authority's own file must verify the
// certificate, or else all bundles by which it is judged: then they are ahead of
// that file.
func (a *Answer) chain(i *Item, leaf *x509.Certificate, others []*x509.Certificate, at time.Time) {
	if len(i.anchors) == 0 {
		a.fault("nothing here tells who verifies it")
		return
	}
	if !a.verifiable(at, leaf) {
		return // it is a fault already
	}
	path, err := pathTo(i, leaf, others, i.anchors[0].anchors, at)
	if err != nil && len(i.anchors) > 1 {
		for _, s := range i.anchors[1:] {
			var other error
			if path, other = pathTo(i, leaf, others, s.anchors, at); other != nil {
				path = nil
				break
			}
		}
	}
	if path == nil {
		a.fault("%s", i.whyUnverified(leaf, err))
		return
	}
	a.Chain = carried(i, path)
}

// verifiable tells whether only the way to the anchor is left to judge.
func (a *Answer) verifiable(at time.Time, leaf *x509.Certificate) bool {
	return !at.After(leaf.NotAfter) && !at.Before(leaf.NotBefore) && !trust.WeakSignature(leaf)
}

// pathTo is the shortest path from the leaf to an anchor, for every usage.
func pathTo(i *Item, leaf *x509.Certificate, others, anchors []*x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range anchors {
		roots.AddCert(c)
	}
	for _, c := range others {
		if c.IsCA {
			between.AddCert(c)
		}
	}
	usages := i.Usages
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 || len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} // that one is a fault of its own
	}
	var shortest []*x509.Certificate
	for _, u := range usages {
		paths, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{u}})
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			if shortest == nil || len(p) < len(shortest) {
				shortest = p
			}
		}
	}
	return shortest, nil
}

// carried is what of a path stands in the file: all but an anchor that is a root,
// and above an anchor that is an intermediate what its own leaves carry.
func carried(i *Item, path []*x509.Certificate) []*x509.Certificate {
	anchor := path[len(path)-1]
	chain := slices.Clone(path[:len(path)-1])
	if len(path) == 1 {
		return path
	}
	for n, c := range i.anchors[0].anchors {
		if c.Equal(anchor) {
			return append(chain, issue.ChainOf(i.anchors[0].anchors[n:])...)
		}
	}
	return chain
}

// whyUnverified says why a certificate finds no anchor, in terms of its issuer.
func (i *Item) whyUnverified(leaf *x509.Certificate, err error) string {
	for _, c := range i.anchors[0].anchors {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) && !trust.SignedWith(leaf, c.PublicKey) {
			return fmt.Sprintf("authority-unknown: it is signed by another key of an authority of the same name, %s, as %s: whoever signs has another authority than this cluster", trust.SubjectText(c.RawSubject), i.anchors[0].who)
		}
	}
	var unknown x509.UnknownAuthorityError
	if err == nil || errors.As(err, &unknown) {
		return fmt.Sprintf("authority-unknown: it is signed by %s, to which %s and what came along lead nowhere: have it signed by %s, or send the intermediate authorities along",
			trust.SubjectText(leaf.RawIssuer), i.anchors[0].who, trust.SubjectText(i.signer.Certificate.RawSubject))
	}
	return fmt.Sprintf("it does not verify by %s: %v", i.anchors[0].who, err)
}
