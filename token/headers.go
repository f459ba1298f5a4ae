package token

import (
	"sync"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// maxHeaders is how many headers are remembered for a set of keys.
const maxHeaders = 256

// headers are the headers under which keys have signed, as go-jose has parsed
// them: a key signs under few, and parsing one takes as long as all else but the
// signature. Only what was signed is remembered, so that strangers cannot fill
// it.
type headers struct {
	parsed sync.Map // header as written (string) to *jose.Signature
	count  atomic.Int64
}

// read returns the header of a token, and whether it was remembered.
func (h *headers) read(u *Unverified) (known bool, header *jose.Signature, err error) {
	if found, ok := h.parsed.Load(u.headerText); ok {
		return true, found.(*jose.Signature), nil
	}
	// The payload and the signature are put in later; neither may be missing.
	object, err := jose.ParseDetached(u.headerText+"..AA", []byte{}, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(u.Algorithm)})
	if err != nil {
		return false, nil, err
	}
	return false, &object.Signatures[0], nil
}

func (h *headers) remember(u *Unverified, header *jose.Signature) {
	if len(u.headerText) > maxCached || h.count.Load() >= maxHeaders {
		return
	}
	if _, loaded := h.parsed.LoadOrStore(u.headerText, header); !loaded {
		h.count.Add(1)
	}
}
