package trust

import "time"

// ClusterNode is the name, in places, of the node that stands for the API of a
// cluster: cluster:configmap/kube-public/cluster-info.
const ClusterNode = "cluster"

// RoleAnchors is the role of a bundle that an object of the API holds. Unlike those
// of a [RoleBundle] its certificates need not be authorities: a webhook's caBundle
// may be the webhook's own certificate.
const RoleAnchors Role = "anchors"

// Objects is what the API of a cluster tells of its trust. The path of a place is
// the name of an object, as in configmap/kube-system/kube-root-ca.crt, and the
// field what stands there, as in data[ca.crt]. A nil list was not read.
type Objects struct {
	Server string // URL that was asked
	// Unreachable says why nothing could be asked; "": it could. Stranger tells that
	// the API server does not know who asks.
	Unreachable string
	Stranger    bool
	// Presented is where the API server's certificate is found among the materials:
	// what it presented to this machine.
	Presented Place
	// Insecure tells that nobody verified it.
	Insecure bool
	// Inside tells that it is what pods are presented too: it holds a name by which
	// only they know the API server.
	Inside bool
	// CA and Client are the kubeconfig's anchors and its client certificate; zero:
	// none.
	CA, Client Place
	User       string // who the kubeconfig is for; "": not known
	Context    string

	Bundles []ObjectBundle
	// Without are the namespaces that lack a kube-root-ca.crt, as places of it.
	Without []Place
	// ServiceAddresses are those of the service default/kubernetes.
	ServiceAddresses []string
	ClusterInfo      *ClusterInfo
	Kubeadm          *KubeadmSettings
	// Requestheader are the values of requestheader-allowed-names; nil: not read.
	Requestheader *RequestheaderNames
	// KeyIDs are those of /openid/v1/jwks.
	KeyIDs []string
	Tokens []StoredToken
	// Bootstrap is what is wrong with bootstrap tokens and the signatures that are
	// made with them, which is judged where their secrets are.
	Bootstrap []ObjectFault
	Requests  []WaitingRequest
	Nodes     []NodeAddresses
	// Sources tell what was looked at, in a fixed order.
	Sources []Source
}

// Source is one kind of object that was looked at.
type Source struct {
	Name  string // for people
	Count int    // objects found
}

// BundleUse tells who trusts the anchors of an object, for what.
type BundleUse string

// The uses of an [ObjectBundle].
const (
	RootCA          BundleUse = "kube-root-ca.crt"       // pods, of the API server
	ClientCA        BundleUse = "client-ca"              // extension API servers, of clients
	RequestheaderCA BundleUse = "requestheader-ca"       // extension API servers, of the front proxy
	DiscoveryCA     BundleUse = "cluster-info"           // joining nodes, of the API server
	ServingCA       BundleUse = "kube-apiserver-serving" // pods, of the API server, by a ClusterTrustBundle
	OtherTrust      BundleUse = "clustertrustbundle"     // whoever mounts it
	TokenCA         BundleUse = "token-secret"           // users of a token's Secret, of the API server
	ServiceCA       BundleUse = "apiservice"             // the API server, of an extension API server
	WebhookCA       BundleUse = "webhook"                // the API server, of an admission webhook
	ConversionCA    BundleUse = "conversion"             // the API server, of a conversion webhook
)

// ObjectBundle is a bundle that objects hold, those with the very same bytes
// together.
type ObjectBundle struct {
	Use    BundleUse
	Place  Place   // of its material
	Copies []Place // others that hold the same
	// Name is what the anchors are trusted for: an APIService, a webhook, a CRD.
	Name string
	// Service is NAMESPACE/NAME of what the API server dials; "" for a URL.
	Service string
	// Default tells that the field is empty, so that the machine's own authorities
	// are trusted; there is no material then.
	Default bool
	// Insecure tells of insecureSkipTLSVerify; there is no material then.
	Insecure bool
	// Available tells that the API server gets through to the APIService; Message
	// says why not, and is empty where that is not known.
	Available bool
	Message   string
}

// ClusterInfo is what kube-public/cluster-info says, beside its anchors.
type ClusterInfo struct {
	Place  Place // of the kubeconfig in it
	Server string
	Reason string // why it does not parse; "": it does
}

// KubeadmSettings are those of kube-system/kubeadm-config that certificates follow
// from.
type KubeadmSettings struct {
	Place                Place
	Reason               string // why it does not parse; "": it does
	ControlPlaneEndpoint string // host[:port]
	CertSANs             []string
	DNSDomain            string
	ServiceSubnet        string
	Validity, CAValidity time.Duration // of certificates and authorities; 0: kubeadm's own
}

// RequestheaderNames are the front proxies that extension API servers believe.
type RequestheaderNames struct {
	Place Place
	Names []string // none: any
}

// StoredToken is the token of a Secret, but for the token itself.
type StoredToken struct {
	Place Place // of the token
	// Namespace, Account and Secret are what the object says; UID is the
	// annotation's.
	Namespace, Account, Secret, UID string
	// Gone tells that there is no such account; NowUID is the uid that it has; "":
	// not known.
	Gone   bool
	NowUID string
	// Empty tells that nobody has put a token into it.
	Empty bool
	// Faults are what no verifier accepts about it, as phrases.
	Faults []string
	// Judged tells that keys were at hand, and KeyID is that of the one that made
	// the signature; "": none of them did.
	Judged bool
	KeyID  string
	// SaidNamespace, SaidAccount, SaidUID and SaidSecret are what the token says.
	SaidNamespace, SaidAccount, SaidUID, SaidSecret string
	Expires                                         time.Time // zero: never
	Created                                         time.Time // of the Secret
	LastUsed                                        string    // a date; "": not known to have been used
	InvalidSince                                    string    // a date since which the API server refuses it
}

// ObjectFault is a finding in the making: what was judged where a secret is at
// hand.
type ObjectFault struct {
	ID, Severity string
	Place        Place
	Cause, Fix   string
}

// WaitingRequest is a CertificateSigningRequest without a certificate that nobody
// has denied.
type WaitingRequest struct {
	Place   Place
	Signer  string
	User    string // who asks
	Created time.Time
	State   string // pending, approved or failed
	Since   time.Time
	Message string // of the condition Failed
	// Names are the names and addresses that it asks for.
	Names []string
}

// NodeAddresses are those that a Node's status has.
type NodeAddresses struct {
	Name      string
	Addresses []NodeAddress
	Port      string // of the kubelet; "": not told
}

// NodeAddress is one address with its type, such as InternalIP.
type NodeAddress struct{ Type, Address string }

// All are the addresses and names, without their types.
func (n *NodeAddresses) All() []string {
	var all []string
	for _, a := range n.Addresses {
		all = append(all, a.Address)
	}
	return all
}

// Node returns the Node of a name, nil when there is none.
func (o *Objects) Node(name string) *NodeAddresses {
	if o == nil {
		return nil
	}
	for i := range o.Nodes {
		if o.Nodes[i].Name == name {
			return &o.Nodes[i]
		}
	}
	return nil
}

// Bundle returns the bundle whose material stands at a place, nil when there is none.
func (o *Objects) Bundle(p Place) *ObjectBundle {
	if o == nil {
		return nil
	}
	for i := range o.Bundles {
		if o.Bundles[i].Place == p {
			return &o.Bundles[i]
		}
	}
	return nil
}

// Objects are those of the API, nil when it was not read.
func (g *Graph) Objects() *Objects {
	for i := range g.Nodes {
		if o := g.Nodes[i].Objects; o != nil {
			return o
		}
	}
	return nil
}

// InAPI tells whether a place is in an object of the API, not in a file.
func (p Place) InAPI() bool { return p.Path != "" && p.Path[0] != '/' }
