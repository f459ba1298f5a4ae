package csr_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/netip"
	"sync"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// shape is a request that is encoded by hand: crypto/x509 would not make the
// odd ones.
type shape struct {
	key        crypto.Signer
	spki       []byte // instead of that of the key
	version    int64
	subject    [][]attribute
	attributes []rawAttribute
	extensions []extension // in one extensionRequest; none: no such attribute
	names      []name      // in a subjectAltName, the first extension; none: no such extension
	algorithm  []byte      // AlgorithmIdentifier, instead of the key's
	hash       crypto.Hash // 0: SHA-256

	afterRequest, afterSignature, afterAttributes []byte
	corruptSignature                              bool
}

type attribute struct {
	oid   asn1.ObjectIdentifier
	tag   cbasn1.Tag
	value string
}

type extension struct {
	oid      asn1.ObjectIdentifier
	critical []byte // the BOOLEAN as it is encoded; nil: left out
	value    []byte
}

// rawAttribute is an attribute with its encoded values.
type rawAttribute struct {
	oid    asn1.ObjectIdentifier
	values []byte
}

// name is a GeneralName.
type name struct {
	tag   cbasn1.Tag
	value string
}

var (
	oidCN    = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidO     = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOU    = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidSAN   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtRq = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	isTrue   = []byte{1, 1, 0xff}
)

func text(oid asn1.ObjectIdentifier, value string) []attribute {
	return []attribute{{oid, cbasn1.PrintableString, value}}
}

func context(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }

func dns(value string) name { return name{context(2), value} }

func ip(text string) name { return name{context(7), string(netip.MustParseAddr(text).AsSlice())} }

// der returns the DER of the shape, signed with its key.
func (s shape) der() []byte {
	info := s.info()
	algorithm, signature := s.sign(info)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
		b.AddBytes(s.afterSignature)
	})
	b.AddBytes(s.afterRequest)
	return b.BytesOrPanic()
}

func (s shape) info() []byte {
	spki := s.spki
	if spki == nil {
		spki = marshalKey(s.key.Public())
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(s.version)
		b.AddASN1(cbasn1.SEQUENCE, s.addSubject)
		b.AddBytes(spki)
		b.AddASN1(context(0).Constructed(), s.addAttributes)
		b.AddBytes(s.afterAttributes)
	})
	return b.BytesOrPanic()
}

func (s shape) addSubject(b *cryptobyte.Builder) {
	for _, rdn := range s.subject {
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			for _, a := range rdn {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.oid)
					b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
				})
			}
		})
	}
}

func (s shape) addAttributes(b *cryptobyte.Builder) {
	all := s.extensions
	if len(s.names) > 0 {
		all = append([]extension{{oid: oidSAN, value: generalNames(s.names...)}}, all...)
	}
	attributes := s.attributes
	if len(all) > 0 {
		attributes = append([]rawAttribute{{oidExtRq, extensions(all...)}}, attributes...)
	}
	for _, a := range attributes {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(a.values) })
		})
	}
}

func generalNames(names ...name) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddASN1(n.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(n.value)) })
		}
	})
	return b.BytesOrPanic()
}

func extensions(all ...extension) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, e := range all {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(e.oid)
				b.AddBytes(e.critical)
				b.AddASN1OctetString(e.value)
			})
		}
	})
	return b.BytesOrPanic()
}

// algorithmIdentifier encodes an algorithm, with NULL as its parameters or none.
func algorithmIdentifier(null bool, oid ...int) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if null {
			b.AddASN1NULL()
		}
	})
	return b.BytesOrPanic()
}

func (s shape) sign(info []byte) (algorithm, signature []byte) {
	digest, hash := sha256.Sum256(info), crypto.SHA256
	summed := digest[:]
	if s.hash == crypto.SHA1 {
		short := sha1.Sum(info)
		summed, hash = short[:], crypto.SHA1
	}
	switch s.key.Public().(type) {
	case *rsa.PublicKey:
		algorithm = algorithmIdentifier(true, 1, 2, 840, 113549, 1, 1, 11)
	case *ecdsa.PublicKey:
		algorithm = algorithmIdentifier(false, 1, 2, 840, 10045, 4, 3, 2)
	case ed25519.PublicKey:
		algorithm, summed, hash = algorithmIdentifier(false, 1, 3, 101, 112), info, 0
	}
	signature, err := s.key.Sign(rand.Reader, summed, hash)
	if err != nil {
		panic(err)
	}
	if s.corruptSignature {
		signature = bytes.Clone(signature)
		signature[len(signature)-1] ^= 1
	}
	if s.algorithm != nil {
		algorithm = s.algorithm
	}
	return algorithm, signature
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// Keys are made once: RSA takes long.
var (
	keyP256    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P256()) })
	keyP384    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P384()) })
	keyP521    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P521()) })
	keyP224    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P224()) })
	keyRSA     = sync.OnceValue(func() crypto.Signer { return newRSA(2048) })
	keyRSA1024 = sync.OnceValue(func() crypto.Signer { return newRSA(1024) })
	keyEd25519 = sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return key
	})
)

func newECDSA(c elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newRSA(bits int) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

// rsaSPKI encodes an RSA public key of which nobody needs the other half.
func rsaSPKI(bits, exponent int) []byte {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return marshalKey(&rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: exponent})
}

// marshalKey returns the SubjectPublicKeyInfo of a key, which is a good one.
func marshalKey(public crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	return der
}
