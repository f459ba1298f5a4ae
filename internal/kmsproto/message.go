package kmsproto

import (
	"crypto"
	_ "crypto/sha256" // the sums whose lengths are known here
	_ "crypto/sha512"
)

// The paths of the protocol. Another version has other paths, so that both can
// be served at once.
const (
	AboutPath = "/about"   // GET: [About]
	KeyPath   = "/v1/key/" // GET, followed by the name of a key: [Key]
	SignPath  = "/v1/sign" // POST [SignRequest]: [SignResponse]
	Version   = "v1"       // the version whose paths these are
	MediaType = "application/json"
)

// MaxBody bounds each body, in bytes. The largest is the signature of an RSA
// key of 16384 bits.
const MaxBody = 16 << 10

// About says which versions of the protocol are spoken.
type About struct {
	Program  string   `json:"program"` // kubepki-kms
	Versions []string `json:"versions"`
}

// Key is the public half of a key.
type Key struct {
	Name      string `json:"name"`
	PublicKey []byte `json:"publicKey"` // SubjectPublicKeyInfo in DER (RFC 5280 section 4.1)
}

// SignRequest asks for a signature over a digest. RSA keys sign by PKCS #1
// v1.5, or by PSS where that is said (RFC 8017 section 8); ECDSA keys give a
// signature in DER (RFC 3279 section 2.2.3).
type SignRequest struct {
	Key    string `json:"key"`
	Hash   string `json:"hash"`   // a name of [Hashes]
	Digest []byte `json:"digest"` // exactly as long as the hash has it
	PSS    *PSS   `json:"pss,omitempty"`
}

// PSS holds the parameters of RSASSA-PSS.
type PSS struct {
	// SaltLength is in bytes; 0 is as much as fits, -1 the length of the hash, as
	// in crypto/rsa.
	SaltLength int `json:"saltLength"`
}

// SignResponse is the answer to a [SignRequest].
type SignResponse struct {
	Signature []byte `json:"signature"`
}

// Code tells kinds of failure apart. Codes are stable; messages are for people.
type Code string

// The codes, with the HTTP status that carries them.
const (
	BadRequest  Code = "bad-request" // 400: the request breaks a rule of the protocol
	NotFound    Code = "not-found"   // 404: no such path, and so no such version
	UnknownKey  Code = "unknown-key" // 404: no key of that name
	Busy        Code = "busy"        // 503: as many signatures as allowed are in the making
	KeyFailed   Code = "key-failed"  // 502: the device or cloud did not sign
	KeyTimedOut Code = "key-timeout" // 504: the device or cloud did not answer in time
)

// Error is the body of every answer whose status is not 200.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error says both.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Hashes returns the hashes that digests may be of, by name. MD5 and SHA-1 are
// not among them.
func Hashes() map[string]crypto.Hash {
	return map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
}
