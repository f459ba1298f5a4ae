package controller

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"time"
)

// asked is the little that the loop itself reads of a request: for whom it is,
// to be fair, and to take requests with one key one after another. The decision
// reads it whole.
type asked struct {
	commonName string
	subject    []byte   // the whole subject, DER
	key        [32]byte // SHA-256 of the SubjectPublicKeyInfo in DER
}

// certificationRequest is the beginning of RFC 2986 section 4: encoding/asn1
// skips what follows the known fields of a sequence.
type certificationRequest struct {
	Info struct {
		Version int
		Subject asn1.RawValue
		Key     asn1.RawValue
	}
}

// readAsked returns the zero value for what does not parse: such requests of
// one user share a turn, and the decision says what is wrong with them.
func readAsked(request []byte) asked {
	block, _ := pem.Decode(request)
	if block == nil {
		return asked{}
	}
	var r certificationRequest
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(block.Bytes, &r); err != nil {
		return asked{}
	}
	a := asked{subject: r.Info.Subject.FullBytes, key: sha256.Sum256(r.Info.Key.FullBytes)}
	if _, err := asn1.Unmarshal(a.subject, &names); err == nil {
		var name pkix.Name
		name.FillFromRDNSequence(&names)
		a.commonName = name.CommonName
	}
	return a
}

// leaf is what the log and the cleaner need of a certificate.
type leaf struct {
	serial   *big.Int
	notAfter time.Time
}

// certificate is the beginning of RFC 5280 section 4.1.
type certificate struct {
	TBS struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    *big.Int
		Algorithm asn1.RawValue
		Issuer    asn1.RawValue
		Validity  struct{ NotBefore, NotAfter time.Time }
	}
}

// readLeaf reads the first certificate of a PEM text; ok tells that there is one.
func readLeaf(chain []byte) (l leaf, ok bool) {
	block, _ := pem.Decode(bytes.TrimSpace(chain))
	if block == nil {
		return leaf{}, false
	}
	var c certificate
	if _, err := asn1.Unmarshal(block.Bytes, &c); err != nil {
		return leaf{}, false
	}
	return leaf{serial: c.TBS.Serial, notAfter: c.TBS.Validity.NotAfter}, true
}
