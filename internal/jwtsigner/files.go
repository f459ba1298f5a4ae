package jwtsigner

import (
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

// Files name the keys of the issuer, by paths as [os.Open] takes them.
type Files struct {
	// Signing holds the private key that signs (PEM).
	Signing string
	// Held is that key where it is held elsewhere, instead of Signing.
	Held crypto.Signer
	// Published hold further public keys, which sign elsewhere, did so once or
	// will; each as [token.ParseKeys] has it.
	Published []string
	// Legacy hold keys that verify tokens and are told to nobody but API servers:
	// the one by which kube-controller-manager signs the tokens of Secrets.
	Legacy []string
}

func (f *Files) paths() []string {
	var all []string
	if f.Held == nil {
		all = append(all, f.Signing)
	}
	return append(append(all, f.Published...), f.Legacy...)
}

// loaded is what the files held.
type loaded struct {
	signer    *token.Signer
	published []token.Key // without the signer's, unless it is in a file too
	legacy    []token.Key // without those that are published
}

// load makes sense of the files, in the order of paths.
func (f *Files) load(contents [][]byte) (*loaded, error) {
	l := &loaded{}
	var err error
	if f.Held != nil {
		if l.signer, err = token.NewSigner(f.Held); err != nil {
			return nil, fmt.Errorf("the signing key, which is held elsewhere: %w", err)
		}
	} else {
		if l.signer, err = parseSigner(contents[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Signing, err)
		}
		contents = contents[1:]
	}
	if l.published, err = parseAll(f.Published, contents); err != nil {
		return nil, err
	}
	legacy, err := parseAll(f.Legacy, contents[len(f.Published):])
	if err != nil {
		return nil, err
	}
	for _, k := range legacy {
		switch {
		case sameKey(k, l.signer.Key()):
			return nil, errors.New("the signing key is among the keys of legacy tokens: kube-apiserver takes no signature of a key that is not published")
		case slices.ContainsFunc(l.published, func(p token.Key) bool { return sameKey(p, k) }):
		case k.ID == l.signer.Key().ID || slices.ContainsFunc(l.published, func(p token.Key) bool { return p.ID == k.ID }):
			return nil, fmt.Errorf("two keys have the id %q, and one of them is not to be published", clip(k.ID))
		default:
			l.legacy = append(l.legacy, k)
		}
	}
	return l, nil
}

func parseSigner(data []byte) (*token.Signer, error) {
	private, err := issue.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	return token.NewSigner(private)
}

func parseAll(paths []string, contents [][]byte) ([]token.Key, error) {
	var all []token.Key
	for i, path := range paths {
		keys, err := token.ParseKeys(contents[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// sameKey tells whether two keys are one, whatever their ids.
func sameKey(a, b token.Key) bool { return trust.SameKey(a.Public, b.Public) }

// holds tells whether a key is among others, under the id that tokens name it by.
func holds(all []token.Key, k token.Key) bool {
	return slices.ContainsFunc(all, func(one token.Key) bool { return one.ID == k.ID && sameKey(one, k) })
}
