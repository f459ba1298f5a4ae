package renew

import (
	"crypto"

	"github.com/kubepki/kubepki/internal/issue"
)

// Authority is who signs the item: zero for an authority that signs itself. Its key
// may be one that only has a public half here.
func (i *Item) Authority() issue.Authority { return i.signer }

// Reuse makes the item use a key that is there again.
func (i *Item) Reuse(key crypto.Signer) { i.key = key }
