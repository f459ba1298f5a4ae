package csr

// The ids of reasons. They are stable and public; docs/csr-policy.md has them
// with their meaning.
const (
	alreadyDecided = "already-decided"
	signerNoRule   = "signer-without-rule"

	requestTooLarge  = "request-too-large"
	pemMalformed     = "pem-malformed"
	pemWrongType     = "pem-type"
	pemHeaders       = "pem-headers"
	pemSurplus       = "pem-surplus"
	derMalformed     = "der-malformed"
	derTrailing      = "der-trailing-data"
	keyUnfit         = "key-unfit"
	keyOfAuthority   = "key-of-authority"
	keyReused        = "key-reused"
	signatureWeak    = "signature-weak"
	signatureInvalid = "signature-invalid"
	lifeTooShort     = "expiration-too-short"

	subjectMalformed    = "subject-malformed"
	subjectCommonName   = "subject-common-name"
	subjectOrganization = "subject-organization"
	subjectSurplus      = "subject-surplus"
	attributeSurplus    = "attribute-surplus"
	extensionSurplus    = "extension-surplus"
	usagesWrong         = "usages-wrong"
	usageEncipherment   = "usage-key-encipherment"

	requesterOtherNode     = "requester-other-node"
	requesterNotNode       = "requester-not-node"
	requesterNoBootstrap   = "requester-not-bootstrapper"
	requesterNotAuthorized = "requester-not-authorized"
	authorizationUnknown   = "authorization-unknown"

	nodesUnknown      = "nodes-unknown"
	nodeNotRegistered = "node-not-registered"
	nodeDeleting      = "node-deleting"
	nodeNoAddresses   = "node-without-addresses"
	nodeReady         = "node-ready"

	sanNotAllowed    = "san-not-allowed"
	sanMissing       = "san-missing"
	sanKind          = "san-kind"
	sanWildcard      = "san-wildcard"
	sanAddressText   = "san-address-as-text"
	sanNameInvalid   = "san-name-invalid"
	sanInCluster     = "san-in-cluster"
	sanControlPlane  = "san-control-plane"
	sanOtherNode     = "san-of-another-node"
	sanNotListed     = "san-not-listed"
	sanShared        = "san-shared"
	sanOutsideRanges = "san-outside-ranges"
	sanNotConfirmed  = "san-not-in-inventory"
	inventoryMissing = "inventory-without-node"
	sanNotInDNS      = "san-not-in-dns"
	dnsUnknown       = "dns-unknown"

	ruleNot          = "rule-not-satisfied"
	ruleFailed       = "rule-failed"
	ruleCannotSee    = "rule-cannot-see"
	ruleUsages       = "rule-usages"
	identityReserved = "identity-reserved"

	nodeBootstraps = "node-bootstraps"
	nodeRenews     = "node-renews"
	nodeServes     = "node-serves"
	ruleApproves   = "rule-approves"
)

// Meaning tells what a reason's id means.
type Meaning struct {
	ID       string
	Verdicts []Verdict // in which it is given
	Text     string
}

// Meanings returns what each id means, in the order of the documentation.
func Meanings() []Meaning {
	approve, deny, undecided, late := []Verdict{Approve}, []Verdict{Deny}, []Verdict{Undecided}, []Verdict{Deny, Undecided}
	return []Meaning{
		{nodeBootstraps, approve, "a bootstrapper asks for a node's first client certificate"},
		{nodeRenews, approve, "a node asks for its next client certificate"},
		{nodeServes, approve, "a node asks to serve under its own names and addresses"},
		{ruleApproves, approve, "a rule of the policy approves"},
		{alreadyDecided, undecided, "the request is approved, denied, failed or issued"},
		{signerNoRule, undecided, "the signer is none of the kubelets', and the policy has no rule for it"},
		{requestTooLarge, deny, "spec.request is larger than 64 KiB"},
		{pemMalformed, deny, "spec.request is not a PEM block"},
		{pemWrongType, deny, "the PEM block is not of type CERTIFICATE REQUEST"},
		{pemHeaders, deny, "the PEM block has headers"},
		{pemSurplus, deny, "there is text around the PEM block, or a second one"},
		{derMalformed, deny, "the block is not a PKCS#10 request in DER, or names a thing twice that may be there once"},
		{derTrailing, deny, "data follows the request, or a part of it"},
		{keyUnfit, deny, "RSA below 2048 or above 8192 bits or with an exponent below 65537, a curve other than P-256, P-384 and P-521, or another kind of key"},
		{keyOfAuthority, deny, "the key is that of an authority of the cluster"},
		{keyReused, deny, "the key has been used by another node or user"},
		{signatureWeak, deny, "the request is signed with SHA-1 or MD5, or by an algorithm that is not known"},
		{signatureInvalid, deny, "the request's signature does not verify with its own key"},
		{lifeTooShort, deny, "expirationSeconds is below 600"},
		{subjectMalformed, deny, "the subject has an RDN of several attributes, or a value that is not plain PrintableString or UTF8String"},
		{subjectCommonName, deny, "the subject has not exactly one common name, system:node: and a valid name of a node"},
		{subjectOrganization, deny, "the subject has not exactly one organization, system:nodes"},
		{subjectSurplus, deny, "the subject has other attributes"},
		{attributeSurplus, deny, "the request has attributes other than requested extensions"},
		{extensionSurplus, deny, "the request asks for extensions other than alternative names"},
		{usagesWrong, deny, "usages are not exactly those of the signer"},
		{usageEncipherment, deny, "key encipherment with a key that is not RSA"},
		{requesterOtherNode, deny, "a node asks for the client certificate of another"},
		{requesterNotNode, deny, "a serving certificate is asked for by another than the node itself"},
		{requesterNoBootstrap, undecided, "the requester is neither the node nor in one of the bootstrap groups"},
		{requesterNotAuthorized, undecided, "the requester has no permission for nodeclient or selfnodeclient"},
		{authorizationUnknown, undecided, "it is not known whether the requester has that permission"},
		{nodesUnknown, undecided, "it is not known which nodes there are"},
		{nodeNotRegistered, undecided, "there is no Node of the name yet"},
		{nodeDeleting, undecided, "the Node is being deleted"},
		{nodeNoAddresses, undecided, "the Node has no addresses yet"},
		{nodeReady, undecided, "a bootstrapper asks for the name of a Node that is Ready now"},
		{sanNotAllowed, deny, "a client certificate is asked for with alternative names"},
		{sanMissing, deny, "a serving certificate is asked for without alternative names"},
		{sanKind, deny, "an alternative name is neither a DNS name nor an IP address"},
		{sanWildcard, deny, "a DNS name has a wildcard"},
		{sanAddressText, deny, "a DNS name is an address written as text"},
		{sanNameInvalid, deny, "a DNS name is not a host name: a blank, a NUL, a trailing dot, an empty label"},
		{sanInCluster, deny, "a name or address of the cluster's services, of the API server within the cluster, or of every machine itself"},
		{sanControlPlane, late, "a name or address of another control-plane node, or an endpoint of the API server that is not the node's own"},
		{sanOtherNode, late, "a name or address of another Node, which this one does not list"},
		{sanNotListed, late, "a name or address that the Node does not list; Undecided for 60 s, since a kubelet may ask before its status lands"},
		{sanShared, undecided, "another Node lists the name or address too: nobody gets it until that is settled"},
		{sanOutsideRanges, deny, "an address outside of the policy's ranges"},
		{sanNotConfirmed, deny, "a name or address that the policy's inventory does not give to the node"},
		{inventoryMissing, undecided, "the policy's inventory does not have the node"},
		{sanNotInDNS, deny, "a name or address that DNS does not give to the node"},
		{dnsUnknown, undecided, "DNS has not answered, or does not have the name"},
		{ruleNot, undecided, "no rule of the signer approves"},
		{ruleFailed, undecided, "a rule of the signer could not be evaluated"},
		{ruleCannotSee, undecided, "the request holds what a rule cannot see"},
		{ruleUsages, undecided, "the request asks for usages that no rule may approve"},
		{identityReserved, undecided, `the request asks for a user or group that begins with "system:"`},
	}
}
