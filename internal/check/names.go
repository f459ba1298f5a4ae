package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// sanMissing gathers all names that one certificate lacks.
func sanMissing(c *Case) []Finding {
	missing := map[trust.Place][]string{}
	var order []trust.Place
	for _, b := range c.Breaks {
		if b.Kind != trust.NameMissing {
			continue
		}
		if _, seen := missing[b.Place]; !seen {
			order = append(order, b.Place)
		}
		if !slices.Contains(missing[b.Place], b.Name) {
			missing[b.Place] = append(missing[b.Place], b.Name)
		}
	}
	// The same names lacking on several nodes are one fault: an endpoint is new.
	groups := map[string][]trust.Place{}
	var keys []string
	for _, p := range order {
		slices.Sort(missing[p])
		key := strings.Join(missing[p], ", ") + " " + p.Path
		if groups[key] == nil {
			keys = append(keys, key)
		}
		groups[key] = append(groups[key], p)
	}
	var out []Finding
	for _, key := range keys {
		places := sortedPlaces(groups[key])
		p := places[0]
		settings, said := c.kubeadmSays(missing[p])
		f := Finding{
			Cause: fmt.Sprintf("%s does not hold %s, at which it is reached%s", named(p), strings.Join(missing[p], ", "), said),
			Fix:   replace(p.Path),
			needs: places,
		}.at(append(places, settings...)...)
		if len(places) > 1 {
			f.Cause = fmt.Sprintf("%s of %d nodes does not hold %s, at which they are reached%s", named(p), len(places), strings.Join(missing[p], ", "), said)
		}
		out = append(out, c.byFlag(c.breaksOf(f, trust.NameMissing)))
	}
	return out
}

func endpointMismatch(c *Case) []Finding {
	var out []Finding
	for i, b := range c.Breaks {
		if b.Kind != trust.NotServed {
			continue
		}
		d := c.Links[b.Link].Server.Dialled
		f := Finding{
			Cause:  fmt.Sprintf("%s dials %s port %s, where nothing of this cluster is known to serve", base(b.Place.Path), d.Host, d.Port),
			Fix:    c.dialRight(b.Place),
			breaks: []int{i},
		}
		if strings.HasSuffix(b.Place.Field, ".tls-server-name") {
			f.Cause = fmt.Sprintf("%s asks the apiserver to be %s, which its certificate does not hold", base(b.Place.Path), d.Host)
			f.Fix = dropServerName(b.Place)
		}
		out = mergeFinding(out, f.at(b.Place))
	}
	return c.movedPort(out)
}

// movedPort makes one finding of several kubeconfigs that dial an apiserver's own
// address at another port than its manifest says: the manifest was changed, not they.
func (c *Case) movedPort(found []Finding) []Finding {
	var out []Finding
	moved := map[trust.Place]int{} // index in out by the flag
	for _, f := range found {
		d := c.Links[c.Breaks[f.breaks[0]].Link].Server.Dialled
		flag, port := c.portOf(d.Host)
		same := 0
		for _, o := range found {
			if e := c.Links[c.Breaks[o.breaks[0]].Link].Server.Dialled; e.Host == d.Host && e.Port == d.Port {
				same++
			}
		}
		if flag.IsZero() || same < 2 {
			out = append(out, f)
			continue
		}
		i, seen := moved[flag]
		if !seen {
			i = len(out)
			moved[flag] = i
			out = append(out, Finding{Cause: fmt.Sprintf("kube-apiserver listens on port %s (%s), where %d kubeconfigs dial %s", port, flag.Field, same, d.Port),
				Fix: c.portBack(flag, d.Port, port)}.at(flag))
		}
		out[i] = out[i].at(append(out[i].places, f.places...)...)
		out[i].breaks = append(out[i].breaks, f.breaks...)
	}
	return out
}

// portOf returns the port of the apiserver whose manifest says that a host is its own.
func (c *Case) portOf(host string) (flag trust.Place, port string) {
	c.components("kube-apiserver", func(p *trust.Component) {
		v, _ := p.Flag("advertise-address")
		a, err := netip.ParseAddr(v)
		if n, _ := p.Flag("secure-port"); err == nil && !p.Source.IsZero() && n != "" && a.Unmap().String() == host {
			flag, port = p.Setting("secure-port"), n
		}
	})
	return flag, port
}

// clusterName takes NAME out of "clusters[NAME].cluster.server".
func clusterName(field string) string {
	_, rest, _ := strings.Cut(field, "[")
	name, _, _ := strings.Cut(rest, "]")
	return name
}

// constraintViolated is one fault for each authority that carries a constraint: of
// the authority where it excludes all that is judged by it, else of the leaves.
func constraintViolated(c *Case) []Finding {
	type group struct {
		carrier certificate
		breaks  []int
		leaves  []trust.Place
	}
	var groups []group
	for i, b := range c.Breaks {
		if b.Kind != trust.Constraint {
			continue
		}
		carrier := c.constrained(b.Certificate)
		at := slices.IndexFunc(groups, func(g group) bool { return g.carrier.Equal(carrier) })
		if at < 0 {
			at, groups = len(groups), append(groups, group{carrier: carrier})
		}
		groups[at].breaks = append(groups[at].breaks, i)
		groups[at].leaves = append(groups[at].leaves, b.Place)
	}
	var out []Finding
	for _, g := range groups {
		leaves, own := uniquePlaces(g.leaves), c.placesOfAuthority(g.carrier)
		f := Finding{breaks: g.breaks, Cause: fmt.Sprintf("a constraint of authority %q excludes %s", g.carrier.Subject.CommonName, names(leaves)),
			Fix: "issue the certificate without the excluded name, or the authority without the constraint"}
		if c.excludesAll(g.carrier, leaves) {
			f = f.at(append(own, leaves...)...)
		} else {
			f = f.at(append(leaves, own...)...)
		}
		out = append(out, f)
	}
	return out
}

// constrained returns the authority above a leaf that has name constraints, the
// leaf's issuer as far as it is known when none has.
func (c *Case) constrained(leaf certificate) certificate {
	found, current := leaf, leaf
	for range 8 {
		i := slices.IndexFunc(c.standings, func(s standing) bool { return s.IsCA && !s.Equal(current) && c.signed(current, s.certificate) })
		if i < 0 {
			break
		}
		if current = c.standings[i].certificate; found.Equal(leaf) {
			found = current
		}
		if hasConstraints(current) {
			return current
		}
	}
	return found
}

func hasConstraints(x certificate) bool {
	return len(x.PermittedDNSDomains)+len(x.ExcludedDNSDomains)+len(x.PermittedIPRanges)+len(x.ExcludedIPRanges)+
		len(x.PermittedEmailAddresses)+len(x.ExcludedEmailAddresses)+len(x.PermittedURIDomains)+len(x.ExcludedURIDomains) > 0
}

// placesOfAuthority are the authorities' own files that hold a certificate, or else
// all places where it stands.
func (c *Case) placesOfAuthority(x certificate) []trust.Place {
	i := slices.IndexFunc(c.standings, func(s standing) bool { return s.Equal(x) })
	if i < 0 {
		return nil
	}
	own := slices.DeleteFunc(slices.Clone(c.standings[i].places), func(p trust.Place) bool { return c.copyRank(p) > 0 })
	if len(own) > 0 {
		return own
	}
	return c.standings[i].places
}

// excludesAll tells whether more than one credential with names is below an
// authority, and each of them is excluded.
func (c *Case) excludesAll(carrier certificate, excluded []trust.Place) bool {
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf != nil && len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 && c.constrained(leaf).Equal(carrier) && !slices.Contains(excluded, cred.Certificate) {
			return false
		}
	}
	return len(excluded) > 1
}
