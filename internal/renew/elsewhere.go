package renew

import (
	"crypto"
	"crypto/x509/pkix"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
)

// Authority is who signs the item: zero for an authority that signs itself. Its key
// may be one that only has a public half here.
func (i *Item) Authority() issue.Authority { return i.signer }

// Reuse makes the item use a key that is there again.
func (i *Item) Reuse(key crypto.Signer) { i.key = key }

// DropExtensions leaves out what the old certificate has beyond what every one gets
// anew, names of other kinds too: whose word does not count could have written anything.
func (i *Item) DropExtensions() {
	if len(i.extensions) > 0 {
		i.Warnings = append(i.Warnings, "extensions and names of other kinds of the old certificate are not kept: nothing but the node's own word says that they are its own")
	}
	i.extensions = nil
}

// Keeps tells whether an extension is one that [Plan] takes over from an old
// certificate: none that says what a certificate may be used for.
func Keeps(e pkix.Extension) bool {
	if e.Id.Equal(alternativeNames) {
		return true
	}
	return !e.Critical && !slices.ContainsFunc(rebuilt, e.Id.Equal) && !slices.ContainsFunc(ofOne, e.Id.Equal)
}
