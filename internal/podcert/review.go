package podcert

// Verdict is what a decision comes to.
type Verdict string

// The verdicts. A request that is Undecided is looked at again.
const (
	Issue     Verdict = "Issue"
	Deny      Verdict = "Deny"
	Undecided Verdict = "Undecided"
)

// Review is a decision with its reason. ID is stable and public, and has the
// form that a condition of the API wants: letters without blanks. The message
// of a denial is read by the pod's author.
type Review struct {
	Verdict Verdict
	ID      string
	Message string
}

// The reasons of the API (k8s.io/api/certificates/v1,
// PodCertificateRequestConditionUnsupportedKeyType and
// PodCertificateRequestConditionInvalidUserConfig).
const (
	UnsupportedKeyType     = "UnsupportedKeyType"
	InvalidUserAnnotations = "InvalidUnverifiedUserAnnotations"
)

// Reasons of our own for denials.
const (
	InvalidKey          = "InvalidKey"
	InvalidExpiration   = "InvalidExpiration"
	InvalidIdentity     = "InvalidIdentity"
	OtherNamespace      = "OtherNamespace"
	PodGone             = "PodGone"
	PodFinished         = "PodFinished"
	PodIsMirror         = "PodIsMirror"
	PodNotOnNode        = "PodNotOnNode"
	OtherServiceAccount = "OtherServiceAccount"
	SignerNotMounted    = "SignerNotMounted"
)

// Reasons to leave a request undecided. They are never written to it.
const (
	OtherSigner        = "OtherSigner"
	KeyNotSeen         = "KeyNotSeen"
	ServiceAccountGone = "ServiceAccountGone"
	NodeGone           = "NodeGone"
)

// Issued is the reason of an issued certificate.
const Issued = "Issued"

func deny(id, message string) Review { return Review{Verdict: Deny, ID: id, Message: message} }
func undecided(id, message string) Review {
	return Review{Verdict: Undecided, ID: id, Message: message}
}
