package check

import "slices"

// Rule finds one kind of fault. Its findings get its id and, unless they say
// otherwise, its severity.
type Rule struct {
	ID       string // stable and public
	Severity Severity
	Judge    func(*Case) []Finding
}

// rules in the order of precedence: what a file itself has wrong, then what a
// credential has wrong, then what does not fit between two places.
var rules []Rule

// A function value in the table may reach ruleIndex, so the table is filled
// when the program starts.
func init() {
	rules = []Rule{
		{"file-missing", Error, fileMissing},
		{"file-unreadable", Error, fileUnreadable},
		{"kubeconfig-broken", Error, kubeconfigBroken},
		{"bundle-empty", Error, bundleEmpty},
		{"cert-malformed", Error, certMalformed},
		{"key-malformed", Error, keyMalformed},
		{"authority-shared", Error, authorityShared},
		{"ca-key-mismatch", Error, caKeyMismatch},
		{"key-mismatch", Error, keyMismatch},
		{"sa-key-mismatch", Error, saKeyMismatch},
		{"ca-invalid", Error, caInvalid},
		{"chain-order", Error, chainOrder},
		{"key-weak", Error, keyWeak},
		{"cert-expired", Error, certExpired},
		{"cert-not-yet-valid", Error, certNotYetValid},
		{"bundle-expired", Error, bundleExpired},
		{"endpoint-mismatch", Error, endpointMismatch},
		{"constraint-violated", Error, constraintViolated},
		{"chain-incomplete", Error, chainIncomplete},
		{"kubelet-serving-self-signed", Info, kubeletServingSelfSigned},
		{"ha-divergence", Error, haDivergence},
		{"bundle-stale", Error, bundleStale},
		{"root-ca-mismatch", Error, rootCAMismatch},
		{"authority-recreated", Error, authorityRecreated},
		{"authority-unknown", Error, authorityUnknown},
		{"flag-conflict", Error, flagConflict},
		{"usage-missing", Error, usageMissing},
		{"requestheader-name-mismatch", Error, requestheaderNameMismatch},
		{"identity-wrong", Error, identityWrong},
		{"san-missing", Error, sanMissing},
		{"signer-not-single", Error, signerNotSingle},
		{"signer-untrusted", Error, signerUntrusted},
		{"sa-verify-key-missing", Error, saVerifyKeyMissing},
		{"sa-issuer-mismatch", Error, saIssuerMismatch},
		{"sa-token-invalid", Error, saTokenInvalid},
		{"sa-token-expired", Error, saTokenExpired},
		{"bootstrap-token-malformed", Error, judgedBeside("bootstrap-token-malformed")},
		{"client-auth-off", Error, clientAuthOff},
		{"verify-off", Error, verifyOff},
		{"plain-http", Error, plainHTTP},
		{"key-permissions", Error, keyPermissions},
		{"unreachable", Error, unreachable},
		{"serving-stale", Error, servingStale},
		{"trust-stale", Error, trustStale},
		{"refused", Error, refused},
		{"ca-key-present", Warning, caKeyPresent},
		{"usage-excess", Warning, usageExcess},
		{"identity-privileged", Warning, identityPrivileged},
		{"requestheader-any-name", Warning, requestheaderAnyName},
		{"cert-expiring", Warning, certExpiring},
		{"cert-outlives-ca", Warning, certOutlivesCA},
		{"serial-duplicate", Warning, serialDuplicate},
		{"bootstrap-leftover", Warning, bootstrapLeftover},
		{"bootstrap-token-expired", Warning, judgedBeside("bootstrap-token-expired")},
		{"bootstrap-token-unbounded", Warning, judgedBeside("bootstrap-token-unbounded")},
		{"bootstrap-token-usage", Warning, judgedBeside("bootstrap-token-usage")},
		{"csr-pending", Warning, csrPending},
		{"static-token-file", Warning, staticTokenFile},
		{"anonymous-on", Warning, anonymousOn},
		{"authorization-open", Error, authorizationOpen},
		{"sa-token-legacy", Info, saTokenLegacy},
		{"kubelet-unverified", Info, kubeletUnverified},
		{"not-seen", Info, notSeen},
	}
}

// Rules returns the table, in the order of precedence.
func Rules() []Rule { return slices.Clone(rules) }

func ruleIndex(id string) int {
	return slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
}
