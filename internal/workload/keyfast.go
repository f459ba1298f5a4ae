package workload

import (
	"crypto"
)

// publicOf returns the public key of a private one.
func publicOf(data []byte) (crypto.PublicKey, error) {
	key, err := ParseKey(data)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}
