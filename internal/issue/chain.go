package issue

import (
	"bytes"
	"crypto/x509"

	"github.com/kubepki/kubepki/internal/trust"
)

// ChainOf returns what leaves of the first certificate of a file must carry
// ([Authority]): the one that signs, and those above it in the file as long as
// each signed the one before, without the root. It is empty where the first is
// a root itself.
func ChainOf(file []*x509.Certificate) []*x509.Certificate {
	if len(file) == 0 || selfSigned(file[0]) {
		return nil
	}
	chain := file[:1:1]
	for _, above := range file[1:] {
		if selfSigned(above) || !trust.SignedBy(chain[len(chain)-1], above) {
			break
		}
		chain = append(chain, above)
	}
	return chain
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && trust.SignedBy(c, c)
}
