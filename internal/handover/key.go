package handover

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// keySize is that of kubeadm (cmd/kubeadm/app/constants CertificateKeySize), in
// bytes: AES-256.
const keySize = 32

// Key is a certificate key, as kubeadm calls it: whoever has it and may read the
// Secret has the cluster. Formatting it in any way shows nothing of it.
type Key struct{ bytes []byte }

// GenerateKey makes a key from crypto/rand.
func GenerateKey() Key {
	b := make([]byte, keySize)
	rand.Read(b) // never fails (crypto/rand)
	return Key{b}
}

// ParseKey reads 64 hexadecimal digits. The error does not repeat the text.
func ParseKey(text string) (Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != keySize {
		return Key{}, fmt.Errorf("does not have %d hexadecimal digits", 2*keySize)
	}
	return Key{b}, nil
}

// IsZero tells whether there is no key.
func (k Key) IsZero() bool { return k.bytes == nil }

// Reveal returns the digits. It is for the answer of a command, never for an error
// or a log.
func (k Key) Reveal() string { return hex.EncodeToString(k.bytes) }

// Format keeps the key out of every verb of package fmt.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "<certificate key>") }

// errSealed does not tell what is wrong: nobody can know.
var errSealed = errors.New("cannot be decrypted: the certificate key is another one, or the content was changed")

func (k Key) aead() (cipher.AEAD, error) {
	if len(k.bytes) != keySize {
		return nil, errors.New("there is no certificate key")
	}
	block, err := aes.NewCipher(k.bytes)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block) // nonce (12 bytes), then the text, then the tag: as kubeadm's EncryptBytes
}

func (k Key) seal(content []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, content, nil), nil
}

func (k Key) open(sealed []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	content, err := aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errSealed
	}
	return content, nil
}
