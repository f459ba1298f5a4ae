package signer

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Files gives the authority of a PEM pair. The certificate's file holds the
// certificate that signs, then those above it, if leaves shall carry them; a
// root among these is left out. The key's file is of any form that Kubernetes
// reads: PKCS #1, PKCS #8 or SEC 1, not encrypted.
//
// Changed files are taken up within three seconds of use, and never a pair that
// does not belong together: told, which may be nil, hears of either.
func Files(certificate, key string, told Told) (*Reloaded, error) {
	return newReloaded([]string{certificate, key}, func(contents [][]byte) (issue.Authority, error) {
		signer, err := issue.ParsePrivateKey(contents[1])
		if err != nil {
			return issue.Authority{}, fmt.Errorf("%s: %w", key, err)
		}
		file, err := certificates(certificate, contents[0], signer.Public())
		if err != nil {
			return issue.Authority{}, err
		}
		return issue.Authority{Certificate: file[0], Key: signer, Chain: issue.ChainOf(file)}, nil
	}, told)
}

// certificates parses the file of an authority whose public key is known.
func certificates(path string, data []byte, public crypto.PublicKey) ([]*x509.Certificate, error) {
	file, err := trust.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !trust.SameKey(file[0].PublicKey, public) {
		return nil, fmt.Errorf("%s: the first certificate, %q, does not belong to the key", path, file[0].Subject)
	}
	return file, nil
}
