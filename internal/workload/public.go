package workload

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"

	"github.com/kubepki/kubepki/internal/trust"
)

// publicOf returns the public key of a private one. An RSA key of two primes is judged
// by what holds its numbers together: crypto/x509 proves the primes too, which
// takes a fifth of a millisecond for 2048 bits and over one for 4096, for each of tens
// of thousands of Secrets at start.
func publicOf(data []byte) (crypto.PublicKey, error) {
	if len(data) <= maxKeyPEM {
		if blocks, err := trust.Blocks(data); err == nil && len(blocks) == 1 && !blocks[0].Encrypted {
			if public := rsaPublicOf(blocks[0]); public != nil {
				return public, nil
			}
		}
	}
	key, err := ParseKey(data)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

var oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}

// rsaPublicOf returns nil for all that is not certainly a whole RSA key: crypto/x509
// says what that is.
func rsaPublicOf(b trust.Block) *rsa.PublicKey {
	der := b.DER
	if b.Type == trust.PrivateKeyType {
		var outer struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}
		if _, err := asn1.Unmarshal(der, &outer); err != nil || !outer.Algorithm.Algorithm.Equal(oidRSA) {
			return nil
		}
		der = outer.Key
	} else if b.Type != trust.RSAKeyType {
		return nil
	}
	var k struct {
		Version          int
		N                *big.Int
		E                int
		D, P, Q          *big.Int
		DP, DQ, QInverse *big.Int
	}
	rest, err := asn1.Unmarshal(der, &k)
	if err != nil || len(rest) > 0 || k.Version != 0 || k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits || k.E < 65537 || k.E > 1<<31-1 || k.E%2 == 0 {
		return nil
	}
	one := big.NewInt(1)
	if k.P.Cmp(one) <= 0 || k.Q.Cmp(one) <= 0 || k.D.Sign() <= 0 || new(big.Int).Mul(k.P, k.Q).Cmp(k.N) != 0 {
		return nil
	}
	for prime, exponent := range map[*big.Int]*big.Int{k.P: k.DP, k.Q: k.DQ} {
		order := new(big.Int).Sub(prime, one)
		if new(big.Int).Mod(k.D, order).Cmp(exponent) != 0 {
			return nil
		}
		if product := new(big.Int).Mul(exponent, big.NewInt(int64(k.E))); product.Mod(product, order).Cmp(one) != 0 {
			return nil
		}
	}
	if inverse := new(big.Int).Mul(k.Q, k.QInverse); inverse.Mod(inverse, k.P).Cmp(one) != 0 {
		return nil
	}
	return &rsa.PublicKey{N: k.N, E: k.E}
}
