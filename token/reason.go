package token

import "strings"

// ReasonID names a kind of refusal. IDs are stable.
type ReasonID string

// The kinds of refusal, in the order in which a token is looked at. Up to
// SignatureInvalid only the first is told; what the claims have wrong is told
// altogether.
const (
	TooLarge          ReasonID = "too-large"           // more than MaxSize bytes
	Malformed         ReasonID = "malformed"           // no compact JWS of strict base64url and strict JSON
	IssuerUnknown     ReasonID = "issuer-unknown"      // iss is none of the issuers
	LegacyRefused     ReasonID = "legacy-refused"      // a token of a Secret where none is wanted
	HeaderForbidden   ReasonID = "header-forbidden"    // crit or b64
	AlgorithmRefused  ReasonID = "algorithm-refused"   // alg is none of the four
	KeyUnknown        ReasonID = "key-unknown"         // no key of this kid
	AlgorithmMismatch ReasonID = "algorithm-mismatch"  // alg is not that of the key
	SignatureInvalid  ReasonID = "signature-invalid"   // no key of this kid made the signature
	TimeInvalid       ReasonID = "time-invalid"        // a time that is none, or exp before nbf
	Expired           ReasonID = "expired"             // exp is past
	ExpiryMissing     ReasonID = "expiry-missing"      // a projected token without exp
	NotYetValid       ReasonID = "not-yet-valid"       // nbf is to come
	IssuedInFuture    ReasonID = "issued-in-future"    // iat is to come
	AudienceMismatch  ReasonID = "audience-mismatch"   // aud and the wanted audiences have none in common
	ClaimMissing      ReasonID = "claim-missing"       // a name or uid that Kubernetes needs
	NameInvalid       ReasonID = "name-invalid"        // a name that no object of Kubernetes can have
	SubjectMismatch   ReasonID = "subject-mismatch"    // sub is not what the claims of Kubernetes say
	FormAmbiguous     ReasonID = "form-ambiguous"      // claims of both forms
	AttestationAbsent ReasonID = "attestation-missing" // bound to a webhook, which needs one
)

// ReasonIDs lists all kinds, in the order of their constants.
func ReasonIDs() []ReasonID {
	return []ReasonID{
		TooLarge, Malformed, IssuerUnknown, LegacyRefused, HeaderForbidden, AlgorithmRefused, KeyUnknown, AlgorithmMismatch, SignatureInvalid,
		TimeInvalid, Expired, ExpiryMissing, NotYetValid, IssuedInFuture, AudienceMismatch, ClaimMissing, NameInvalid, SubjectMismatch,
		FormAmbiguous, AttestationAbsent,
	}
}

// Reason says why a token is refused.
type Reason struct {
	ID ReasonID `json:"id"`
	// Message is one sentence for whoever runs the verifier. It may quote
	// claims, shortened, and never the token. It is nothing for whoever sent the
	// token.
	Message string `json:"message"`
}

// RefusedError tells why a token was refused: it has one reason or more.
type RefusedError struct{ Reasons []Reason }

// Error says the reasons, in one line.
func (e *RefusedError) Error() string {
	var all []string
	for _, r := range e.Reasons {
		all = append(all, r.Message)
	}
	return "token refused: " + strings.Join(all, "; ")
}

// Has tells whether a reason is among those of the refusal.
func (e *RefusedError) Has(id ReasonID) bool {
	for _, r := range e.Reasons {
		if r.ID == id {
			return true
		}
	}
	return false
}

func refuse(id ReasonID, message string) *RefusedError {
	return &RefusedError{[]Reason{{id, message}}}
}
