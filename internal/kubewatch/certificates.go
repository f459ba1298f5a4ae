package kubewatch

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"

	"github.com/kubepki/kubepki/internal/brief"
)

var (
	begin = []byte("-----BEGIN CERTIFICATE-----")
	end   = []byte("-----END CERTIFICATE-----")
	dash  = []byte("-----BEGIN ")
)

// maxInObject is how many certificates of one value are kept: a bundle of all the
// world's public authorities has some 150.
const maxInObject = 200

// certificates returns the certificates in a PEM text, without decoding what else may
// be in it. fault is the word for what is wrong, as x509-certificate-exporter has it;
// "": nothing.
func certificates(text []byte) (found []brief.Held, left int, fault string) {
	empty := len(bytes.TrimSpace(text)) == 0
	for {
		i := bytes.Index(text, begin)
		if i < 0 {
			break
		}
		text = text[i:]
		j := bytes.Index(text, end)
		if j < 0 {
			return found, left, "bad_pem"
		}
		block := text[:j+len(end)]
		text = text[j+len(end):]
		if bytes.Contains(block[len(begin):], dash) {
			return found, left, "bad_pem" // another block begins in it, which may be a key
		}
		if len(found) == maxInObject {
			left++
			continue
		}
		decoded, _ := pem.Decode(block)
		if decoded == nil {
			fault = "bad_pem"
			continue
		}
		c, err := x509.ParseCertificate(decoded.Bytes)
		if err != nil {
			fault = "bad_pem"
			continue
		}
		found = append(found, brief.Of(c))
	}
	if len(found) == 0 && fault == "" && !empty {
		fault = "no_certificate_found"
	}
	return found, left, fault
}
