package check

import (
	"fmt"
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
	var out []Finding
	for _, p := range order {
		slices.Sort(missing[p])
		f := Finding{
			Cause: fmt.Sprintf("%s does not hold %s, at which it is reached", named(p), strings.Join(missing[p], ", ")),
			Fix:   replace(p.Path),
			needs: []trust.Place{p},
		}.at(p)
		out = append(out, c.breaksOf(f, trust.NameMissing))
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
	return out
}

// clusterName takes NAME out of "clusters[NAME].cluster.server".
func clusterName(field string) string {
	_, rest, _ := strings.Cut(field, "[")
	name, _, _ := strings.Cut(rest, "]")
	return name
}

// constraintViolated is one fault of the authority that carries the constraint.
func constraintViolated(c *Case) []Finding {
	groups := map[string]int{}
	var out []Finding
	for i, b := range c.Breaks {
		if b.Kind != trust.Constraint {
			continue
		}
		id := string(b.Certificate.RawIssuer) + string(b.Certificate.AuthorityKeyId)
		at, seen := groups[id]
		if !seen {
			at = len(out)
			groups[id] = at
			out = append(out, Finding{Cause: fmt.Sprintf("a constraint of authority %q excludes %s", b.Certificate.Issuer.CommonName, named(b.Place)),
				Fix: "issue the certificate from another authority, or the authority without the constraint"})
		}
		out[at] = out[at].at(append(out[at].places, b.Place)...)
		out[at].breaks = append(out[at].breaks, i)
	}
	return out
}
