package explain

// sense tells whose credential a message is about, as far as the message alone
// tells it.
type sense int

const (
	ofPeer   sense = iota // who wrote it judged the other's certificate
	ofWriter              // the other refused the writer's certificate
	ofCallee              // the server's certificate, whoever wrote it
	ofCaller              // the caller's credential, whoever wrote it
	ofFile                // a file of the writer's own
	ofWire                // neither: the connection itself
)

// depth tells how much a message says: a message of a greater depth explains a
// line that holds both.
const (
	where = iota // only where something failed
	what         // what happened, for one of several reasons
	why          // the reason
	sure         // the reason, whatever other reasons stand beside it
)

// class is a kind of fault that messages tell of.
type class struct {
	depth int
	sense sense
	// means is what it means, in one sentence; {shower} is who shows the
	// credential, {judge} who judges it, {caller} and {callee} the ends.
	means string
	// findings are the ids of what verify can find as its cause, the likeliest
	// first.
	findings []string
	// bundle tells that what the judge trusts is to be looked at first.
	bundle bool
	// api tells that only a server of an HTTP API says so: etcd does not.
	api bool
	// token tells that the caller's credential is a token.
	token bool
}

// The causes that several classes have in common.
var (
	trustFaults = []string{"bundle-stale", "authority-recreated", "authority-unknown", "ha-divergence", "root-ca-mismatch", "chain-incomplete", "chain-order", "bundle-empty",
		"bundle-expired", "kubelet-serving-self-signed", "kubelet-unverified", "trust-stale", "serving-stale", "authority-shared", "flag-conflict", "not-seen"}
	fileFaults  = []string{"cert-malformed", "key-malformed", "key-mismatch", "bundle-empty", "file-missing", "file-unreadable", "ca-invalid", "flag-conflict"}
	tokenFaults = []string{"sa-verify-key-missing", "sa-key-mismatch", "sa-issuer-mismatch", "sa-token-invalid", "sa-token-expired", "trust-stale", "bootstrap-token-expired",
		"bootstrap-token-usage"}
	dateFaults = []string{"cert-expired", "cert-not-yet-valid", "bundle-expired", "serving-stale"}
	// A refusal does not say for what: whatever can be wrong with a certificate.
	allFaults = concat(dateFaults, []string{"cert-expired", "san-missing", "usage-missing", "identity-wrong", "key-mismatch", "constraint-violated", "ca-invalid", "key-weak",
		"endpoint-mismatch"}, trustFaults)
)

func concat(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

var classes = map[string]class{
	// Judged by who wrote the line.
	"expired":           {depth: why, sense: ofPeer, means: "the certificate that {shower} shows, or an authority above it, is past its end by {judge}'s clock", findings: []string{"cert-expired", "bundle-expired", "cert-not-yet-valid", "serving-stale"}},
	"not-yet-valid":     {depth: why, sense: ofPeer, means: "the certificate that {shower} shows, or an authority above it, begins later than {judge}'s clock says: a clock is wrong, or the certificate is", findings: []string{"cert-not-yet-valid"}},
	"unknown-authority": {depth: why, sense: ofPeer, means: "{judge} does not hold the authority that signed the certificate of {shower}", bundle: true, findings: trustFaults},
	"other-authority":   {depth: why, sense: ofPeer, means: "{judge} holds an authority of the right name whose key did not sign the certificate of {shower}: the authority was made anew, and one of the two is of the old one", bundle: true, findings: trustFaults},
	"wrong-usage":       {depth: why, sense: ofPeer, means: "the certificate that {shower} shows lacks the extended key usage of its role: serverAuth for who serves, clientAuth for who calls", findings: []string{"usage-missing", "chain-order", "flag-conflict"}},
	"not-an-authority":  {depth: why, sense: ofPeer, means: "a certificate above that of {shower} may not sign: no CA in its basic constraints, no keyCertSign, or a path length that is used up", findings: []string{"ca-invalid", "chain-order", "authority-unknown"}},
	"constraint":        {depth: why, sense: ofPeer, means: "an authority above the certificate of {shower} may not sign for its names or usages", findings: []string{"constraint-violated", "usage-missing"}},
	"weak-signature":    {depth: why, sense: ofPeer, means: "the certificate of {shower}, or one above it, is signed with an algorithm that Go refuses (SHA-1, MD5) or does not know", findings: []string{"key-weak"}},
	"bad-signature":     {depth: why, sense: ofPeer, means: "a signature in the chain of {shower} is not that of the authority whose name it has: the authority was made anew, or the certificate was altered", bundle: true, findings: trustFaults},
	"no-chain":          {depth: why, sense: ofPeer, means: "no chain leads from the certificate of {shower} to an authority that {judge} trusts", bundle: true, findings: trustFaults},
	"verify-failed":     {depth: what, sense: ofPeer, means: "{judge} does not accept the certificate of {shower}; the line does not say why", findings: allFaults},
	"bad-peer":          {depth: what, sense: ofPeer, means: "{judge} does not accept the certificate of {shower}; the line does not say why", findings: allFaults},
	"unsupported-key":   {depth: why, sense: ofPeer, means: "the key of {shower} is of a kind or size that the two ends do not both take", findings: []string{"key-weak", "cert-malformed"}},
	"bad-proof":         {depth: why, sense: ofPeer, means: "{shower} could not prove that it has the key of its certificate: key and certificate do not belong together, or the connection was tampered with", findings: []string{"key-mismatch", "key-weak"}},

	// Names: only a caller looks at them, but for etcd's peers.
	"name-mismatch": {depth: why, sense: ofCallee, means: "{caller} dials {callee} by a name or address that its certificate does not hold", findings: []string{"san-missing", "endpoint-mismatch", "serving-stale"}},
	"peer-address":  {depth: why, sense: ofCaller, means: "{callee} lets a peer in only from an address in the peer's certificate, and {caller} came from another (or one that DNS does not lead back to)", findings: []string{"san-missing", "identity-wrong"}},

	// Refused by the other side.
	"refused-certificate": {depth: why, sense: ofWriter, means: "{judge} refused the certificate of {shower}. Go clients say bad certificate for every reason: an authority that they do not know, a name, a date; Go servers for all but an unknown authority and an expired certificate", bundle: true, findings: allFaults},
	"refused-authority":   {depth: why, sense: ofWriter, means: "{judge} does not hold the authority that signed the certificate of {shower}", bundle: true, findings: trustFaults},
	"refused-expired":     {depth: why, sense: ofWriter, means: "{judge} found the certificate of {shower}, or an authority above it, past its end or not yet valid", findings: dateFaults},
	"refused-revoked":     {depth: why, sense: ofWriter, means: "{judge} holds a list of revoked certificates (CRL) that names that of {shower}", findings: nil},
	"refused-nothing":     {depth: why, sense: ofCaller, means: "{callee} wants a client certificate, and {caller} showed none: none is configured, or its authority is not among those that {callee} asked for", findings: concat([]string{"file-missing", "kubeconfig-broken", "plain-http", "flag-conflict"}, trustFaults)},
	"no-client-certificate": {depth: why, sense: ofCaller, means: "{caller} showed no client certificate, which {callee} requires: none is configured, or its authority is not among those that {callee} asked for",
		findings: concat([]string{"file-missing", "kubeconfig-broken", "plain-http", "flag-conflict"}, trustFaults)},
	"refused-access":   {depth: why, sense: ofWriter, means: "{judge} knows who {shower} is, and does not let it in", findings: []string{"identity-wrong", "requestheader-name-mismatch"}},
	"refused-internal": {depth: why, sense: ofCallee, means: "{callee} failed in the middle of the handshake. A kubelet says so while it has no serving certificate: its request (serverTLSBootstrap) waits for approval", findings: []string{"csr-pending", "refused", "cert-malformed", "key-mismatch"}},
	"refused-name":     {depth: why, sense: ofCallee, means: "{callee} does not serve the name (SNI) that {caller} asked for", findings: []string{"san-missing", "endpoint-mismatch"}},
	"refused-proof":    {depth: why, sense: ofWriter, means: "{judge} could not verify {shower}'s proof that it has the key of its certificate: key and certificate do not belong together", findings: []string{"key-mismatch"}},
	"refused-protocol": {depth: why, sense: ofWire, means: "the two ends have no TLS version, cipher suite or protocol in common: see --tls-min-version and --tls-cipher-suites of both, or a key of a kind that one of them does not take", findings: []string{"key-weak", "key-mismatch"}},

	// The callee has nothing to show.
	"no-serving-certificate": {depth: why, sense: ofCallee, means: "{callee} has no serving certificate to show: its files are empty or not there, or (a kubelet's) its request waits for approval", findings: concat([]string{"csr-pending", "refused"}, fileFaults)},
	"serving-without-tls":    {depth: why, sense: ofFile, means: "a URL and the TLS settings of {callee} contradict each other: https needs a certificate and a key, and http ignores them", findings: []string{"plain-http", "flag-conflict", "client-auth-off", "file-missing"}},

	// The connection.
	"not-tls":           {depth: why, sense: ofWire, means: "one end speaks TLS and the other does not: https is dialled where plain HTTP is served, or something else listens on the port", findings: []string{"plain-http", "endpoint-mismatch", "unreachable", "flag-conflict"}},
	"plain-client":      {depth: why, sense: ofWire, means: "{caller} speaks plain HTTP to a port of {callee} that serves TLS: http:// in place of https:// in a URL or a probe", findings: []string{"plain-http", "endpoint-mismatch", "flag-conflict"}},
	"negotiation":       {depth: why, sense: ofWire, means: "the two ends have no TLS version, cipher suite, curve or protocol in common: see --tls-min-version and --tls-cipher-suites of both", findings: []string{"key-weak"}},
	"broken-handshake":  {depth: why, sense: ofWire, means: "a message of the handshake is not as RFC 8446 wants it: what listens there is not the component that is meant, or something between the two changes the bytes", findings: []string{"endpoint-mismatch", "unreachable"}},
	"unreachable":       {depth: what, sense: ofWire, means: "nobody answers where {caller} dials: {callee} does not run (its own log says why), or the address is wrong", findings: []string{"unreachable", "endpoint-mismatch", "file-missing", "cert-malformed", "key-mismatch"}},
	"timeout":           {depth: where, sense: ofWire, means: "no answer came in time: a firewall, a wrong address, or a server that is too busy", findings: []string{"unreachable", "endpoint-mismatch"}},
	"connection-closed": {depth: where, sense: ofWire, means: "the other end closed the connection. A server that refuses a client's certificate in TLS 1.3 can look so, for its alert is lost when a request is on its way: its own log says more", findings: allFaults},
	"peer-closed":       {depth: why, sense: ofWire, means: "the other end closed the connection of its own will: it stops, or a limit of it has passed", findings: nil},
	"server-tls":        {depth: where, sense: ofWire, means: "a connection failed in the TLS handshake; the line does not say why", findings: allFaults},
	"webhook":           {depth: where, sense: ofWire, means: "kube-apiserver could not call a webhook", findings: allFaults},
	"aggregated":        {depth: where, sense: ofWire, means: "kube-apiserver could not call an extension API server", findings: allFaults},
	"clock":             {depth: why, sense: ofWire, means: "the clocks of two members differ by more than a second: certificates that have just begun or are about to end are judged differently", findings: []string{"cert-not-yet-valid", "cert-expired"}},
	"other-cluster":     {depth: why, sense: ofWire, means: "a member of another etcd cluster answers at a peer's address: not a fault of certificates", findings: []string{"ha-divergence"}},

	// Files of the writer.
	"malformed-certificate": {depth: why, sense: ofFile, means: "a certificate does not parse: a truncated or altered file, or another thing in a certificate's place", findings: []string{"cert-malformed", "bundle-empty", "flag-conflict", "chain-order"}},
	"malformed-key":         {depth: why, sense: ofFile, means: "a private key does not parse: encrypted, of another form, truncated, or another thing in a key's place", findings: []string{"key-malformed", "key-mismatch", "sa-key-mismatch", "flag-conflict"}},
	"pem-missing":           {depth: why, sense: ofFile, means: "a file does not hold the PEM block that its role needs: an empty file, or certificate and key changed places", findings: []string{"cert-malformed", "key-malformed", "bundle-empty", "flag-conflict", "kubeconfig-broken"}},
	"key-mismatch":          {depth: why, sense: ofFile, means: "the private key does not belong to the certificate beside it: one of the two is of another time or another component", findings: []string{"key-mismatch", "ca-key-mismatch", "chain-order", "flag-conflict"}},
	"pair-unreadable":       {depth: what, sense: ofFile, means: "a certificate and its key could not be loaded", findings: concat([]string{"key-mismatch"}, fileFaults)},
	"bundle-unreadable":     {depth: what, sense: ofFile, means: "a bundle of authorities could not be loaded", bundle: true, findings: concat([]string{"bundle-empty"}, fileFaults)},
	"weak-key":              {depth: why, sense: ofFile, means: "a key is weaker than the component accepts", findings: []string{"key-weak"}},
	"sa-key-file":           {depth: what, sense: ofFile, token: true, means: "a key that signs or verifies tokens of service accounts could not be loaded: RSA or ECDSA keys alone are taken", findings: concat([]string{"key-malformed", "sa-key-mismatch"}, fileFaults)},
	"file-missing":          {depth: what, sense: ofFile, means: "a file is not there", findings: []string{"file-missing"}},
	"file-unreadable":       {depth: what, sense: ofFile, means: "a file may not, or cannot, be read by who wants it", findings: []string{"file-unreadable", "key-permissions"}},
	"no-kubeconfig":         {depth: why, sense: ofFile, means: "{caller} was given no kubeconfig, and then dials localhost:8080, where nobody serves: name one with --kubeconfig or the variable KUBECONFIG (on a control plane /etc/kubernetes/admin.conf, as root)", findings: nil},
	"kubeconfig":            {depth: what, sense: ofFile, means: "a kubeconfig does not say whole and well whom to call and what to show", findings: []string{"kubeconfig-broken", "file-missing", "file-unreadable", "cert-malformed", "key-malformed"}},
	"etcd-config":           {depth: why, sense: ofFile, means: "flags of etcd about TLS that cannot all be right", findings: []string{"flag-conflict"}},
	"system-roots":          {depth: why, sense: ofFile, bundle: true, means: "no bundle of authorities is configured, and the machine has none of its own", findings: []string{"bundle-empty", "file-missing"}},

	// Client certificates and identities.
	"client-expired":    {depth: sure, sense: ofCaller, means: "the client certificate of {caller} is past its end", findings: []string{"cert-expired"}},
	"client-unverified": {depth: what, sense: ofCaller, api: true, means: "{callee} does not accept the credential of {caller}", findings: concat(allFaults, tokenFaults)},
	"csr-not-signed":    {depth: what, sense: ofCaller, means: "{caller} asked for a certificate and got none: nobody approved the request, nobody signed it, or it was denied", findings: []string{"csr-pending", "signer-not-single", "signer-untrusted", "ca-key-mismatch", "bootstrap-token-expired", "file-missing"}},
	"proxy-name":        {depth: sure, sense: ofCaller, means: "a client of the front-proxy authority has a name that --requestheader-allowed-names does not list", findings: []string{"requestheader-name-mismatch", "identity-wrong"}},
	"requestheader":     {depth: what, sense: ofFile, means: "the settings of the front proxy (--requestheader-*, or the ConfigMap extension-apiserver-authentication that they are published in) cannot be used", findings: []string{"authority-shared", "requestheader-any-name", "requestheader-name-mismatch", "flag-conflict"}},
	"anonymous":         {depth: what, sense: ofCaller, api: true, means: "{callee} does not know {caller} at all: it showed no credential, or one that was not looked at", findings: concat([]string{"kubeconfig-broken", "file-missing", "client-auth-off"}, trustFaults, tokenFaults)},
	"forbidden":         {depth: what, sense: ofCaller, api: true, means: "{callee} knows who {caller} is, and that user may not do this: the wrong name or group in the certificate, or a missing role binding", findings: []string{"identity-wrong", "identity-privileged"}},
	"identity":          {depth: why, sense: ofCaller, api: true, means: "the subject of the certificate of {caller} cannot be turned into a user", findings: []string{"identity-wrong"}},

	"bootstrap-needed": {depth: why, sense: ofCaller, means: "{caller} has no client certificate that is still good (what its kubeconfig names is missing or has expired), and no bootstrap kubeconfig to ask for another",
		findings: []string{"cert-expired", "file-missing", "kubeconfig-broken", "cert-malformed", "key-mismatch", "file-unreadable"}},
	"pin": {depth: why, sense: ofCallee, means: "the authority that the cluster publishes is not the one whose hash was given (--discovery-token-ca-cert-hash): a join command of another cluster, or the authority was made anew since",
		findings: []string{"authority-recreated", "bundle-stale", "ca-key-mismatch"}},
	"signer": {depth: what, sense: ofFile, means: "kube-controller-manager cannot sign certificates with the authority of --cluster-signing-cert-file and --cluster-signing-key-file, or read --root-ca-file",
		findings: []string{"signer-not-single", "ca-key-mismatch", "file-missing", "file-unreadable", "cert-malformed", "key-malformed", "cert-expired", "bundle-empty"}},

	// Beside the cluster.
	"registry":  {depth: sure, sense: ofWire, means: "the container runtime could not fetch an image: the registry is judged by the authorities of the machine and of its own configuration (/etc/containerd/certs.d), which is no link of the cluster", findings: nil},
	"tcp-probe": {depth: why, sense: ofWire, means: "somebody opened the connection and closed it before any handshake: mostly the TCP check of a load balancer or of monitoring, and harmless", findings: nil},

	// Tokens.
	"oidc":             {depth: why, sense: ofCaller, token: true, means: "{callee} does not accept the ID token of {caller}, or cannot reach its issuer: see --oidc-* or --authentication-config, and the certificate of the issuer", findings: nil},
	"token-refused":    {depth: what, sense: ofCaller, api: true, token: true, means: "{callee} does not accept the credential of {caller} (401): a token that is wrong, expired or of another cluster, or a client certificate that it does not verify. The log of {callee} says which", findings: concat(tokenFaults, allFaults)},
	"token-expired":    {depth: why, sense: ofCaller, token: true, means: "the token of {caller} is past its end: its holder has not read the file again, or a clock is wrong", findings: []string{"sa-token-expired", "bootstrap-token-expired"}},
	"token-early":      {depth: why, sense: ofCaller, token: true, means: "the token of {caller} begins later than {callee}'s clock says: the clocks of two control planes differ", findings: []string{"sa-token-invalid", "cert-not-yet-valid"}},
	"token-signature":  {depth: why, sense: ofCaller, token: true, means: "no key that {callee} verifies tokens with made the signature of {caller}'s token: it was signed with a key that is not in --service-account-key-file, or in another cluster", findings: tokenFaults},
	"token-issuer":     {depth: why, sense: ofCaller, token: true, means: "the token of {caller} was issued under a name that {callee} does not list in --service-account-issuer", findings: []string{"sa-issuer-mismatch", "sa-token-invalid"}},
	"token-audience":   {depth: why, sense: ofCaller, token: true, means: "the token of {caller} is for another audience than {callee} (--api-audiences)", findings: []string{"sa-issuer-mismatch", "sa-token-invalid", "flag-conflict"}},
	"token-revoked":    {depth: why, sense: ofCaller, token: true, means: "the token of {caller} is bound to a service account, Secret, Pod or Node that is gone or was made anew", findings: []string{"sa-token-invalid"}},
	"token-malformed":  {depth: why, sense: ofCaller, token: true, means: "the token of {caller} is not one of a service account as {callee} reads it", findings: []string{"sa-token-invalid"}},
	"token-unreadable": {depth: what, sense: ofFile, token: true, means: "a file that holds a token is empty or cannot be read", findings: []string{"file-missing", "file-unreadable", "kubeconfig-broken"}},
	"token-feature":    {depth: why, sense: ofCaller, token: true, means: "the token of {caller} is bound in a way that a feature gate of {callee} turns off", findings: nil},
	"bootstrap-token":  {depth: why, sense: ofCaller, token: true, means: "the bootstrap token of {caller} is not one that {callee} accepts: its Secret is gone, expired, of another secret, or not for authentication", findings: []string{"bootstrap-token-malformed", "bootstrap-token-expired", "bootstrap-token-usage", "bootstrap-leftover"}},

	// The program itself.
	"internal": {depth: why, sense: ofWire, means: "a mistake in a program or in how it uses TLS, not in a credential", findings: nil},
	"making":   {depth: why, sense: ofFile, means: "a program could not make a certificate, request or revocation list from what it was given", findings: []string{"ca-invalid", "ca-key-mismatch", "key-malformed", "signer-not-single"}},
}

// Classes returns the ids of the findings that a class of messages can be
// explained by, by the name of the class.
func Classes() map[string][]string {
	all := map[string][]string{}
	for name, c := range classes {
		all[name] = c.findings
	}
	return all
}
