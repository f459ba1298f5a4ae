package diagram

import (
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Diagram is what a picture of one cluster shows.
type Diagram struct {
	Name    string // folder, when several clusters are drawn
	At      time.Time
	Live    bool // the running components were looked at
	Healthy bool
	// Groups are nodes that are alike, in the order in which they were given.
	Groups []Group
	// Boxes are components, those of a group beside each other.
	Boxes  []Box
	Arrows []Arrow
	// Authorities are those that signed something good on some arrow.
	Authorities []Authority
	Findings    []check.Finding
	Counts      Counts
}

// Counts sum up.
type Counts struct{ Nodes, Links, Broken, Halves, Unseen, Errors, Warnings, Infos int }

// Group is one node, or several that are alike.
type Group struct {
	Nodes []string // names as given; a single node that nobody named is ""
	Title string   // all of them in few words
	// As is the title of the group that these nodes are like but for what is
	// drawn here; empty when everything of them is drawn here.
	As string
	// Findings are the indices of the findings, errors and warnings, that stand
	// at one of the nodes.
	Findings []int
}

// Box is a component, on all nodes of its group.
type Box struct {
	Group     int // index of the group; -1: on no node that was given
	Component string
	Title     string
	Note      bool // no component: the group has none to draw, and needs a place
}

// Arrow is one link, or several that differ only in which nodes of two groups
// they join.
type Arrow struct {
	Number         int // as in docs/links.md
	Caller, Callee int // indices of boxes
	Links          int // how many links it stands for
	// Callers and Callees are the nodes at its ends: those of its boxes, and
	// those that are like them but for what is drawn of their own.
	Callers, Callees []string
	// Client is the caller's credential judged by the callee, Server the
	// callee's by the caller; nil when that side is not judged.
	Client, Server *Half
}

// OK tells that no half is broken.
func (a *Arrow) OK() bool { return !a.Client.Is(check.Broken) && !a.Server.Is(check.Broken) }

// Half is one side of an arrow.
type Half struct {
	State  check.State
	Proofs []check.Proof // how the state is known, each once
	// Credential is what is shown, as the catalogue names it.
	Credential string
	// Authority names who signed it; empty when that is not known, [Several] when
	// the picture has no place to tell them apart.
	Authority string
	// NotBefore and NotAfter are those of the credential that ends first; zero
	// when it is no certificate or was not seen.
	NotBefore, NotAfter time.Time
	// First is where that one stands.
	First trust.Place
	// Findings are indices: first those that break the half, then those that
	// stand at its credential.
	Findings []int
}

// Is tells whether the half is judged and in a state.
func (h *Half) Is(s check.State) bool { return h != nil && h.State == s }

// Authority is one entry of the legend.
type Authority struct {
	Name     string
	Subject  string    // empty for the key that signs tokens
	NotAfter time.Time // zero for the key that signs tokens
}

// SigningKey is the name under which the service-account key stands in the
// legend.
const SigningKey = "service-account key"

// Several stands for authorities that are not told apart.
const Several = "several authorities"
