package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
)

// Kind tells what is wrong with one half of a link.
type Kind string

// The kinds of [Break].
const (
	NoCertificate    Kind = "no-certificate"    // the certificate cannot be read
	NoKey            Kind = "no-key"            // the key cannot be read
	NoBundle         Kind = "no-bundle"         // the verifier's anchors cannot be read
	KeyMismatch      Kind = "key-mismatch"      // the key does not belong to the certificate
	Expired          Kind = "expired"           // Certificate is past its end
	NotYetValid      Kind = "not-yet-valid"     // Certificate has not begun
	WrongUsage       Kind = "wrong-usage"       // a usage that the role needs is absent
	NameMissing      Kind = "name-missing"      // Name is not in the certificate
	OtherAuthority   Kind = "other-authority"   // an anchor has the issuer's name and another key
	UnknownAuthority Kind = "unknown-authority" // no anchor has the issuer's name
	ChainIncomplete  Kind = "chain-incomplete"  // an intermediate is not shown
	NotAnAuthority   Kind = "not-an-authority"  // a certificate in the chain may not sign
	Constraint       Kind = "constraint"        // a name constraint excludes the leaf
	WrongIdentity    Kind = "wrong-identity"    // the callee maps the certificate to another user
	Weak             Kind = "weak"              // crypto/x509 refuses the signature algorithm
	NotServed        Kind = "not-served"        // nothing of the cluster serves where the caller dials
	Live             Kind = "live"              // what was seen of the running components differs from the files
)

// Break is one reason why a half of a link does not work.
type Break struct {
	Kind Kind
	// Place is where the broken thing stands; for questions of trust it is the
	// certificate that is not trusted.
	Place Place
	// Certificate is the one concerned: the leaf, or an authority above it.
	Certificate *x509.Certificate
	Name        string // of NameMissing: the name; of WrongIdentity: what is wanted
}

// JudgeServer returns what is wrong with the callee's credential in the eyes of
// the caller at a time, nothing for a half that works or cannot be seen.
func (g *Graph) JudgeServer(h *ServerHalf, at time.Time) []Break {
	return NewJudgement(g, at).Server(h)
}

// Server judges as [Graph.JudgeServer] does.
func (j *Judgement) Server(h *ServerHalf) []Break {
	g, at := j.graph, j.at
	if h == nil || h.Unverified {
		return nil
	}
	if h.Credential == nil {
		return g.judgeBundle(h.Bundle, at)
	}
	breaks := g.judgeCredential(h.Credential)
	leaf := g.Material(h.Credential.Certificate).Leaf()
	if leaf == nil {
		return breaks
	}
	if h.Bundle != nil {
		breaks = append(breaks, j.chain(g.Material(h.Credential.Certificate).Certificates, h.Credential.Certificate, h.Bundle, x509.ExtKeyUsageServerAuth)...)
	} else {
		breaks = append(breaks, judgeAlone(leaf, h.Credential.Certificate, x509.ExtKeyUsageServerAuth, at)...)
	}
	if h.Dialled != nil && !h.Dialled.Served {
		return append(breaks, Break{Kind: NotServed, Place: h.Dialled.Setting, Name: h.Dialled.Host})
	}
	if len(h.Names) == 0 && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
		breaks = append(breaks, Break{Kind: NameMissing, Place: h.Credential.Certificate, Certificate: leaf, Name: "any subject alternative name (names in the CN alone are refused)"})
	}
	for _, name := range h.Names {
		if leaf.VerifyHostname(name) != nil {
			breaks = append(breaks, Break{Kind: NameMissing, Place: h.Credential.Certificate, Certificate: leaf, Name: name})
		}
	}
	return breaks
}

// JudgeClient returns what is wrong with the caller's credential in the eyes of
// the callee at a time, nothing for a half that works or cannot be seen.
func (g *Graph) JudgeClient(h *ClientHalf, at time.Time) []Break {
	return NewJudgement(g, at).Client(h)
}

// Client judges as [Graph.JudgeClient] does.
func (j *Judgement) Client(h *ClientHalf) []Break {
	g, at := j.graph, j.at
	if h == nil || h.Credential == nil {
		return nil
	}
	breaks := g.judgeCredential(h.Credential)
	leaf := g.Material(h.Credential.Certificate).Leaf()
	if leaf == nil {
		return breaks
	}
	if h.Bundle != nil {
		breaks = append(breaks, j.chain(g.Material(h.Credential.Certificate).Certificates, h.Credential.Certificate, h.Bundle, x509.ExtKeyUsageClientAuth)...)
	} else {
		breaks = append(breaks, judgeAlone(leaf, h.Credential.Certificate, x509.ExtKeyUsageClientAuth, at)...)
	}
	if want, ok := h.Want.accepts(leaf); !ok {
		breaks = append(breaks, Break{Kind: WrongIdentity, Place: h.Credential.Certificate, Certificate: leaf, Name: want})
	}
	return breaks
}

// judgeBundle judges the bundle of a caller whose callee was not seen: whether
// anything at all could verify with it.
func (g *Graph) judgeBundle(b *Bundle, at time.Time) []Break {
	if b == nil || g.Material(b.Anchors).notGiven() {
		return nil
	}
	anchors := g.AnchorsOf(b)
	if len(anchors) == 0 {
		return []Break{{Kind: NoBundle, Place: b.Anchors}}
	}
	var breaks []Break
	for _, a := range anchors {
		k, ok := outside(a, at)
		if !ok {
			return nil
		}
		breaks = append(breaks, Break{Kind: k, Place: b.Anchors, Certificate: a})
	}
	return breaks
}

// judgeAlone judges a certificate when nobody knows who verifies it: dates and
// usage, which everybody looks at who does.
func judgeAlone(leaf *x509.Certificate, place Place, usage x509.ExtKeyUsage, at time.Time) []Break {
	var breaks []Break
	if k, ok := outside(leaf, at); ok {
		breaks = append(breaks, Break{Kind: k, Place: place, Certificate: leaf})
	}
	bounded := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0
	if bounded && !slices.Contains(leaf.ExtKeyUsage, usage) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		breaks = append(breaks, Break{Kind: WrongUsage, Place: place, Certificate: leaf})
	}
	return breaks
}

// accepts tells whether a certificate is mapped to the identity: the CN is the
// user and each O a group (k/k apiserver/pkg/authentication/request/x509).
// Otherwise it returns what is wanted.
func (w Identity) accepts(leaf *x509.Certificate) (want string, ok bool) {
	user := leaf.Subject.CommonName
	switch {
	case w.Named && user == "":
		return "a common name (CN), which is the user", false
	case w.User != "" && user != w.User:
		return "CN=" + w.User, false
	case w.Prefix != "" && (!strings.HasPrefix(user, w.Prefix) || user == w.Prefix):
		return "CN=" + w.Prefix + "<name>", false
	case w.Group != "" && !slices.Contains(leaf.Subject.Organization, w.Group):
		return "O=" + w.Group, false
	case len(w.Names) > 0 && !slices.Contains(w.Names, user):
		return "CN=" + strings.Join(w.Names, " or CN="), false
	}
	return "", true
}

// judgeCredential looks at the certificate and its key alone.
func (g *Graph) judgeCredential(c *Credential) []Break {
	m, k := g.Material(c.Certificate), g.Material(c.Key)
	if m.notGiven() {
		return nil
	}
	var breaks []Break
	switch leaf := m.Leaf(); {
	case leaf == nil:
		breaks = append(breaks, Break{Kind: NoCertificate, Place: c.Certificate})
	case refusedKey(leaf.PublicKey):
		breaks = append(breaks, Break{Kind: Weak, Place: c.Certificate, Certificate: leaf})
	}
	switch {
	case k == nil || k.notGiven():
	case !k.OK():
		breaks = append(breaks, Break{Kind: NoKey, Place: c.Key})
	case m.Leaf() != nil && !slices.ContainsFunc(k.Keys, func(p crypto.PublicKey) bool { return SameKey(p, m.Leaf().PublicKey) }):
		breaks = append(breaks, Break{Kind: KeyMismatch, Place: c.Key, Certificate: m.Leaf()})
	}
	return breaks
}

// refusedKey tells whether crypto/tls shakes no hands with a key: of ECDSA it
// knows P-256, P-384 and P-521, and crypto/rsa needs 1024 bits at least.
func refusedKey(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P224()
	case *rsa.PublicKey:
		return k.N.BitLen() < 1024
	}
	return false
}

func (m *Material) notGiven() bool {
	return m == nil || m.State == NotGiven || m.State == Denied
}

// AnchorsOf returns the anchors that a bundle comes to for who trusts it; none
// where its file cannot be used.
func (g *Graph) AnchorsOf(b *Bundle) []*x509.Certificate {
	m := g.Material(b.Anchors)
	if m == nil || !b.Headed {
		return m.certificates()
	}
	return slices.Concat(m.Certificates, m.Headed)
}

func (m *Material) certificates() []*x509.Certificate {
	if m == nil {
		return nil
	}
	return m.Certificates
}

// Unseen tells whether a half cannot be judged because a part of it is not in
// what was given.
func (g *Graph) Unseen(c *Credential, b *Bundle) bool {
	if c == nil || g.Material(c.Certificate).notGiven() {
		return true
	}
	return b != nil && g.Material(b.Anchors).notGiven()
}

// chain judges a chain, which stands at a place, against a bundle.
func (j *Judgement) chain(chain []*x509.Certificate, place Place, b *Bundle, usage x509.ExtKeyUsage) []Break {
	if j.graph.Material(b.Anchors).notGiven() {
		return nil
	}
	anchors := j.graph.AnchorsOf(b)
	if len(anchors) == 0 {
		return []Break{{Kind: NoBundle, Place: b.Anchors}}
	}
	var breaks []Break
	leaf := chain[0]
	if k, ok := outside(leaf, j.at); ok {
		breaks = append(breaks, Break{Kind: k, Place: place, Certificate: leaf})
	}
	v := j.verdict(chain, anchors, usage)
	if v.broken != nil {
		broken := *v.broken
		broken.Place = place
		return append(breaks, broken)
	}
	for _, a := range v.path[1:] {
		if k, ok := outside(a, j.at); ok {
			breaks = append(breaks, Break{Kind: k, Place: b.Anchors, Certificate: a})
		}
	}
	if v.kind != "" {
		breaks = append(breaks, Break{Kind: v.kind, Place: place, Certificate: leaf})
	}
	return breaks
}

func outside(c *x509.Certificate, at time.Time) (Kind, bool) {
	switch {
	case at.After(c.NotAfter):
		return Expired, true
	case at.Before(c.NotBefore):
		return NotYetValid, true
	}
	return "", false
}

// common returns a time at which all certificates are valid.
func common(path []*x509.Certificate) (time.Time, bool) {
	from, to := path[0].NotBefore, path[0].NotAfter
	for _, c := range path[1:] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	return from, !from.After(to)
}

// path follows the signatures from the leaf to an anchor. Where it ends without
// one, the break tells why.
func (j *Judgement) path(chain, anchors []*x509.Certificate) ([]*x509.Certificate, *Break) {
	path := chain[:1:1]
	for current := chain[0]; len(path) <= len(chain); {
		if slices.ContainsFunc(anchors, current.Equal) {
			return path, nil
		}
		if a := j.issuerOf(current, anchors); a != nil {
			return append(path, a), nil
		}
		next := j.issuerOf(current, chain[1:])
		if next == nil || slices.ContainsFunc(path, next.Equal) {
			return nil, j.noPath(current, anchors)
		}
		path, current = append(path, next), next
	}
	return nil, &Break{Kind: UnknownAuthority, Certificate: chain[0]}
}

func (j *Judgement) noPath(c *x509.Certificate, anchors []*x509.Certificate) *Break {
	b := &Break{Kind: UnknownAuthority, Certificate: c}
	if slices.ContainsFunc(anchors, func(a *x509.Certificate) bool { return bytes.Equal(a.RawSubject, c.RawIssuer) }) {
		b.Kind = OtherAuthority
		return b
	}
	// An intermediate that the graph knows and that an anchor signed.
	if i := j.issuerOf(c, j.graph.authorityCertificates()); i != nil && j.issuerOf(i, anchors) != nil {
		b.Kind = ChainIncomplete
	}
	return b
}

func (g *Graph) authorityCertificates() []*x509.Certificate {
	var all []*x509.Certificate
	for _, a := range g.Authorities {
		if m := g.Material(a.Certificate); m.OK() {
			all = append(all, m.Certificates...)
		}
	}
	return all
}

// issuerOf returns the candidate whose key signed c, nil when there is none.
// It asks the signature alone: whether the candidate may sign is asked later.
func (j *Judgement) issuerOf(c *x509.Certificate, candidates []*x509.Certificate) *x509.Certificate {
	for _, a := range candidates {
		if j.SignedBy(c, a) {
			return a
		}
	}
	return nil
}

// signedBy tells whether a's key signed c, also when the algorithm is one that
// crypto/x509 refuses for its weakness: then names and key ids decide.
func signedBy(c, a *x509.Certificate) bool {
	err := a.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	if errors.As(err, new(x509.InsecureAlgorithmError)) {
		return len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, a.SubjectKeyId)
	}
	return err == nil
}

// SignedBy tells whether a's name and key are the issuer's of c.
func SignedBy(c, a *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, c.RawIssuer) && signedBy(c, a)
}

// SignedWith tells whether a key signed a certificate, whoever it belongs to.
func SignedWith(c *x509.Certificate, key crypto.PublicKey) bool {
	signer := x509.Certificate{PublicKey: key}
	switch key.(type) {
	case *rsa.PublicKey:
		signer.PublicKeyAlgorithm = x509.RSA
	case *ecdsa.PublicKey:
		signer.PublicKeyAlgorithm = x509.ECDSA
	case ed25519.PublicKey:
		signer.PublicKeyAlgorithm = x509.Ed25519
	}
	return signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// verifyKind asks crypto/x509, which is what the components ask.
func verifyKind(chain, anchors []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) (Kind, bool) {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, a := range anchors {
		o.Roots.AddCert(a)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	if err == nil {
		return "", true
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.IncompatibleUsage:
			return WrongUsage, false
		case x509.CANotAuthorizedForThisName, x509.TooManyConstraints, x509.UnconstrainedName, x509.NameConstraintsWithoutSANs, x509.CANotAuthorizedForExtKeyUsage:
			return Constraint, false
		}
		return NotAnAuthority, false
	}
	if errors.As(err, new(x509.InsecureAlgorithmError)) {
		return Weak, false
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		// The signature was found to be right, so the authority may not sign,
		// or its signature algorithm is refused.
		if weakSignature(chain[0].SignatureAlgorithm) {
			return Weak, false
		}
		return NotAnAuthority, false
	}
	return UnknownAuthority, false
}

func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// WeakSignature tells whether a certificate is signed with an algorithm that
// crypto/x509 refuses. The signature of a self-signed anchor is never checked.
func WeakSignature(c *x509.Certificate) bool {
	return weakSignature(c.SignatureAlgorithm) && !bytes.Equal(c.RawSubject, c.RawIssuer)
}

// SameKey tells whether two public keys are equal.
func SameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
