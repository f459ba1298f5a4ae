package trust

import (
	"crypto"
	"crypto/x509"
	"strings"
)

// State tells whether what should stand at a place could be read.
type State string

// The states of a [Material] or [File].
const (
	Present    State = "present"    // read and parsed
	Missing    State = "missing"    // absent, or a dangling link, while its siblings are there
	Unreadable State = "unreadable" // a folder, a link loop, too large, or no permission
	Denied     State = "denied"     // exists, and the reader lacks the right to read it
	Malformed  State = "malformed"  // does not parse as what its role needs
	NotGiven   State = "not-given"  // its whole folder or source is not in what was given
)

// Role says what a file or kubeconfig field is used as.
type Role string

// The roles of a [Material].
const (
	RoleCertificate Role = "certificate" // a credential's certificate with its chain
	RoleKey         Role = "key"         // a credential's or authority's private key
	RoleBundle      Role = "bundle"      // anchors that somebody trusts
	RoleAuthority   Role = "authority"   // an authority's own certificate
	RoleVerifyKeys  Role = "verify-keys" // public keys that verify service-account tokens
	RoleCombined    Role = "combined"    // certificate and key in one file, as the kubelet writes
	// RoleConfiguration is a component's configuration file, which holds none of
	// the above: only whether it can be read is kept.
	RoleConfiguration Role = "configuration"
)

// Material is what stands at one place: the parsed content of one PEM file or
// of one kubeconfig field. Of a private key only the public half is kept.
type Material struct {
	Place  Place
	Role   Role
	State  State
	Reason string // why it is not Present: a phrase without any secret
	// Certificates are in the order of their blocks.
	Certificates []*x509.Certificate
	// Keys are the public keys of the file: public key blocks, certificates
	// used as keys, and the public half of each private key.
	Keys []crypto.PublicKey
	// Headed are the certificates of blocks with headers (RFC 1421) in a bundle. Go
	// passes over them (crypto/x509 AppendCertsFromPEM, client-go util/cert
	// ParseCertsPEM), so they are none of Certificates; etcd takes them all the same.
	Headed []*x509.Certificate
	// HasPrivateKey tells that a private key that parses stands here.
	HasPrivateKey bool
	// Target is the path that a symbolic link ends at, as on the node; empty
	// when the file is no link.
	Target string
}

// OK tells whether the material was read and parsed.
func (m *Material) OK() bool { return m != nil && m.State == Present }

// Leaf returns the first certificate, nil when there is none.
func (m *Material) Leaf() *x509.Certificate {
	if m == nil || len(m.Certificates) == 0 {
		return nil
	}
	return m.Certificates[0]
}

// File is a file or folder as the disk shows it, for rules about permissions.
type File struct {
	Place   Place
	Mode    uint32 // permission bits only
	UID     int    // owner; -1 when not known
	IsDir   bool
	Private bool // holds, or is a folder that holds, a private key or token
	// Holds says what is private in it, where that is no private key.
	Holds string
}

// Kubeconfig is what the current context of one kubeconfig file says. Tokens
// and passwords are not kept.
type Kubeconfig struct {
	Place  Place
	State  State
	Reason string // why it is broken: names the field
	Field  string // the field that Reason is about
	Server string // URL
	// ServerName is tls-server-name, the name to verify instead of the host.
	ServerName string
	// CA, Certificate and Key are places of materials: a field of this file
	// when embedded, another file when given by path; zero when not set.
	CA, Certificate, Key Place
	Insecure             bool // insecure-skip-tls-verify
	HasToken             bool
	// Secret tells that a key, a token or a password stands in the file itself.
	Secret bool
	// Plugin is exec or auth-provider when a program gives the credential.
	Plugin  string
	User    string // name of the user entry, not an identity
	Cluster string
	Context string
	// Server, CA, user fields as written in the file, for findings.
	ServerField string
	// Remote tells that it leads to a webhook, not to kube-apiserver.
	Remote bool
}

// Component is a running part of the cluster on one node, as its manifest,
// unit or layout configures it.
type Component struct {
	Node string
	Name string // kube-apiserver, etcd, kubelet, admin, ...
	// Source is the manifest or unit that the flags were read from; zero when
	// they are the defaults of the layout.
	Source Place
	// Flags maps a flag's name without dashes to its values in order. A flag
	// given without a value has the value "true". What a configuration file sets
	// is here too, under the name of the flag that means the same.
	Flags map[string][]string
	// Settings are the places of those flags that do not stand as "--flag" in
	// Source: the field of a configuration file, or another file with flags.
	Settings map[string]Place
	// Remotes are the servers beside the cluster's components that it calls.
	Remotes []Remote
	// Conflicts are settings that make the component refuse its configuration.
	Conflicts []Conflict
}

// Remote is a server that a component's configuration names and that is none of
// the components that a graph knows: a webhook, an issuer of tokens, a proxy.
type Remote struct {
	Number  int    // of the link: 14 or 21, 0 when it has none
	Name    string // for people: "authorization webhook"
	Setting Place  // the flag or field that names it
	// Kubeconfig is the file that says how it is called; zero when the settings
	// below say it.
	Kubeconfig           Place
	URL                  string
	ServerName           string // to verify instead of the URL's host
	CA, Certificate, Key Place  // zero when not set
	// CASetting and KeySetting are where CA and Key are set.
	CASetting, KeySetting Place
}

// Conflict is a setting that a component refuses, or that cannot be meant.
type Conflict struct {
	Place  Place
	Reason string // a sentence
	Fix    string
}

// Setting returns where the value of a flag stands, or would stand; zero when
// the component's flags are the defaults of the layout.
func (c *Component) Setting(flag string) Place {
	if p, ok := c.Settings[flag]; ok {
		return p
	}
	if c.Source.IsZero() {
		return Place{}
	}
	return c.Source.In("--" + flag)
}

// ID returns "node/name", or the name alone when the node has none.
func (c *Component) ID() string {
	if c.Node == "" {
		return c.Name
	}
	return c.Node + "/" + c.Name
}

// SplitID takes the ID of a component apart; the node is empty when it has none.
func SplitID(id string) (node, name string) {
	if node, name, ok := strings.Cut(id, "/"); ok {
		return node, name
	}
	return "", id
}

// Flag returns the last value of a flag, as flag parsers do, and whether it is set.
func (c *Component) Flag(name string) (string, bool) {
	if v := c.Flags[name]; len(v) > 0 {
		return v[len(v)-1], true
	}
	return "", false
}

// Node is everything that was read of one node. It is the input of a [Graph].
type Node struct {
	Name string // as the caller names it; empty for a single unnamed node
	// NodeName is the Kubernetes node name when the files tell it, else empty.
	NodeName    string
	Layout      string // kubeadm, service, ...
	Live        bool   // read from /, so that what is absent is missing
	Components  []Component
	Kubeconfigs []Kubeconfig
	Materials   []*Material
	Files       []File
	// NotSeen names sources that were not in what was given, for one info each.
	NotSeen []NotSeen
	// Objects are those of the node that stands for the cluster's API, nil for a
	// node of files.
	Objects *Objects
	// Authorities are the authorities that the layout arranges, in its order.
	Authorities []NodeAuthority
	// Processes are the components that run, where these were looked at.
	Processes []Process
}

// Process is a running component, as the kernel shows it.
type Process struct {
	PID       int
	Component string // its name
	// Flags are those of its command line, and of etcd's variables where
	// Environment tells that these could be read.
	Flags       map[string][]string
	Environment bool
	// Written are the flags with which it would be started now; nil when nothing
	// tells them all.
	Written map[string][]string
	// Apart tells that it runs in a container.
	Apart bool
	// OtherFiles are the flags whose file it sees another one of than the node
	// has at that path.
	OtherFiles []string
}

// NodeAuthority is where a node's layout keeps an authority, whether the files
// are there or not.
type NodeAuthority struct {
	Name        string
	Certificate string // absolute paths
	Key         string // empty when nothing tells where it would stand
	// Signs are the names of the credentials that are of it, where its own name
	// does not tell; see catalog.AuthorityFile.
	Signs []string
}

// NotSeen is a folder or source that could not be looked at.
type NotSeen struct {
	Place  Place
	Reason string
	Denied bool // for lack of rights
	// Stops names the component that cannot run for it: its manifest is refused.
	Stops string
}

// Authority is something that signs: a CA certificate in its own file.
type Authority struct {
	Name        string // cluster, etcd, front-proxy, kubelet, root
	Node        string
	Certificate Place
	Key         Place // where its key stands or would stand
	// Signs are the names of the credentials that are of it, and catalog.Clients
	// for all clients; nil where the name tells.
	Signs []string
}

// Credential is what a component shows.
type Credential struct {
	ID          string // "node/name", e.g. cp1/apiserver
	Name        string // as the catalog names it
	Node        string
	Certificate Place
	Key         Place
	Server      bool // needs serverAuth
	Client      bool // needs clientAuth
	// KeySetting is the flag that names the key; zero for a kubeconfig's.
	KeySetting Place
}

// Bundle is a set of anchors that a component trusts for one purpose.
type Bundle struct {
	Anchors Place
	Setting Place // where the bundle is configured: flag or kubeconfig field
	// Client tells that the bundle authenticates clients, so that whoever it
	// admits becomes a user.
	Client bool
	// Foreign tells that it verifies servers beside the cluster's components,
	// whose own certificate may be an anchor, authority or not.
	Foreign bool
	// Headed tells that who trusts it takes the blocks with headers too.
	Headed bool
}

// Identity is what a callee maps a client certificate to.
type Identity struct {
	User   string // exact CN; empty: any
	Prefix string // prefix of the CN, when User is empty
	Group  string // group that must be among the O values; empty: none needed
	// Named tells that a CN is needed at all, as the apiserver and the kubelet do.
	Named bool
	// Names lists the allowed CNs (requestheader-allowed-names); nil: any.
	Names []string
}

// ServerHalf is the callee's credential judged by the caller.
type ServerHalf struct {
	Credential *Credential // nil: not seen
	Bundle     *Bundle     // nil: not seen, or the caller does not verify
	Names      []string    // what the caller dials; each must be in the certificate
	// Dialled is where a kubeconfig says to dial; nil when the names come from
	// the server's own configuration.
	Dialled *Endpoint
	// Unverified tells that the caller does not verify the server, by
	// insecure-skip-tls-verify or for want of a bundle.
	Unverified bool
}

// Endpoint is an address that a caller is configured to dial.
type Endpoint struct {
	Setting Place // the field that says so
	Host    string
	Port    string
	// Served tells that something of this cluster is known to serve there, by
	// configuration or by a name in its certificate.
	Served bool
}

// ClientHalf is the caller's credential judged by the callee.
type ClientHalf struct {
	Credential *Credential // nil: not seen
	Bundle     *Bundle     // nil: not seen
	Want       Identity
}

// Link is one connection: caller → callee.
type Link struct {
	Number  int    // as operators number them, see docs/links.md
	Caller  string // component ID
	Callee  string // component ID
	Server  *ServerHalf
	Client  *ClientHalf
	Signing *SigningHalf // links by token: who signs and who verifies
}

// SigningHalf is a signer's key judged by a verifier's keys (link 12).
type SigningHalf struct {
	Key      Place // private key that signs
	VerifyBy []Place
}

// Graph is all that is known of a cluster, ordered.
type Graph struct {
	Nodes       []Node
	Authorities []Authority
	Credentials []*Credential
	Bundles     []*Bundle
	Links       []Link
	// Materials by place.
	Materials map[Place]*Material
	// Observations are what was seen of the running components; none when they
	// were not looked at.
	Observations []Observation
}

// Material returns what stands at a place, nil when nothing is known of it.
func (g *Graph) Material(p Place) *Material {
	if p.IsZero() {
		return nil
	}
	return g.Materials[p]
}
