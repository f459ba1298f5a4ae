package report

import "github.com/kubepki/kubepki/internal/trust"

// Signers tells of each credential's place which authority signed it, under the
// name that the inventory gives to the authority.
func (v *Inventory) Signers() map[trust.Place]string {
	signers := map[trust.Place]string{}
	for i := range v.Credentials {
		c := &v.Credentials[i]
		signers[trust.Place{Node: c.Node, Path: c.Path, Field: c.Field}] = c.Authority
		if c.parsed != nil && c.Authority == "" && trust.SignedBy(c.parsed, c.parsed) {
			signers[trust.Place{Node: c.Node, Path: c.Path, Field: c.Field}] = SelfSigned
		}
	}
	return signers
}

// SelfSigned stands for the authority of a certificate that signed itself.
const SelfSigned = "itself"
