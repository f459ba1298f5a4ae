package apply

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// ofCertificate are the findings that a certificate which is put in place must not
// have, be they there before or not.
var ofCertificate = []string{
	"cert-expired", "cert-not-yet-valid", "cert-malformed", "san-missing", "usage-missing", "identity-wrong",
	"authority-unknown", "chain-incomplete", "chain-order", "constraint-violated", "key-mismatch", "key-weak",
}

// Faults are the errors, by the rules, for which certificates that were signed
// elsewhere are not put in place: those that would be there then and are not now, and
// those on a certificate of the renewal itself.
func (r *Renewal) Faults(n *Nodes, before *check.Result, at time.Time) []string {
	was := map[string]bool{}
	for _, f := range before.Findings {
		was[keyOf(f)] = true
	}
	var faults []string
	for _, f := range check.Run(catalog.Wire(withFiles(n.Nodes, r.Files)), check.Options{At: at}).Findings {
		ours := slices.ContainsFunc(r.Files, func(o *File) bool { return o.Place == trust.Place{Node: f.Node, Path: f.Path} })
		if f.Severity == check.Error && (!was[keyOf(f)] || ours && slices.Contains(ofCertificate, f.ID)) {
			faults = append(faults, fmt.Sprintf("with it there would be %s: %s", f.ID, f.Cause))
		}
	}
	return faults
}

func keyOf(f check.Finding) string {
	return fmt.Sprintf("%q", []string{f.ID, f.Node, f.Path, f.Field})
}
