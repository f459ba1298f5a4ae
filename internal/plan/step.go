package plan

import (
	"crypto"
	"crypto/x509"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Kind names what a step does.
type Kind string

// The kinds of step, in their order.
const (
	Separate Kind = "separate" // a signer that shares its file with a bundle gets one of its own
	Accept   Kind = "accept"   // every verifier trusts old and new
	Switch   Kind = "switch"   // signers sign with the new
	Issue    Kind = "issue"    // every credential is made anew
	Drop     Kind = "drop"     // every verifier trusts the new alone
	Join     Kind = "join"     // the signer uses the authority's own file again
)

// Authority is the public material of a new authority.
type Authority struct {
	Certificate *x509.Certificate
	// Chain is what each leaf carries behind it, Certificate itself included,
	// when Certificate is not what verifiers trust; nil for a root.
	Chain []*x509.Certificate
}

// Content is what stands, or shall stand, at a place. The zero Content is
// nothing: the file is to be removed.
type Content struct {
	// Certificates are, in order, the anchors of a bundle, the one certificate
	// of a signer, or a leaf that exists with its chain.
	Certificates []*x509.Certificate
	// Keys are the public keys that verify tokens, or the public half of the
	// key of a signer.
	Keys []crypto.PublicKey
	// IssuedBy is who shall sign a credential that does not exist yet: for the
	// same subject, names and usages as the one that stands there, with a new
	// key. Nil when Certificates exist.
	IssuedBy *Authority
}

// Change is one thing that a step writes: a material, or a setting.
type Change struct {
	// Place is what is written: a file or the field of a kubeconfig, or an
	// object of the API, whose Path is then its URL path and whose Node is empty.
	Place trust.Place
	Role  trust.Role
	// Component and Setting are set when a flag of a component is changed, so
	// that it names Place, which was Was before.
	Component, Setting string
	Was                trust.Place
	After              Content // of a material; zero: remove it
}

// Load is one process that must hold what was written before the step is done.
type Load struct {
	Component string // component ID; "publisher" of an object of the API, "pod", and their like
	Place     trust.Place
	Role      trust.Role
	Setting   string // as [Reloads] takes it
	How       Reload
}

// Gate is what must be so before the next step.
type Gate struct {
	// Wait is how long what reloads by itself may take.
	Wait time.Duration
	// Must says what is to be seen everywhere.
	Must string
	// Unseen names what the graph cannot show, and what somebody must see to.
	Unseen []string
}

// Step is one step of a plan. Within a step the order is free: each mixture of
// processes that have taken it up and processes that have not is proved.
type Step struct {
	Kind    Kind
	Title   string // one sentence
	Changes []Change
	Loads   []Load
	Gate    Gate
}

// Plan replaces authorities. It is empty (no Steps) when all is done.
type Plan struct {
	// Authorities are the names of those that are replaced.
	Authorities []string
	Steps       []Step
	// Broken are halves of links that do not hold before the first step. They
	// are judged from the step on that mends them.
	Broken []Half
	// Unseen are files and fields that components name and that could not be
	// read: no step writes them, and nothing is proved of who uses them.
	Unseen []trust.Place
	// Unjudged counts the halves that cannot be judged because a part of them is
	// not in the graph, or is not verified by its caller.
	Unjudged int
}

// Half names one half of a link of the graph.
type Half struct {
	Link           int // number, see docs/links.md; 0: no link of the graph
	Caller, Callee string
	Side           string // client or server, as in package check
}
