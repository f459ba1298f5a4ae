package catalog

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Names of components that distributions have beside Kubernetes' own. All but
// the Supervisor are clients of the API server and nothing else.
const (
	Supervisor       = "supervisor"               // k3s and RKE2: what nodes join by
	ControlAPI       = "control API"              // k0s: what controllers join by
	CloudController  = "cloud-controller-manager" // k3s, RKE2
	NodeController   = "node controller"          // k3s, RKE2: the part of an agent that watches its node
	APIServerClient  = "kube-apiserver's client"  // k3s, RKE2
	SupervisorClient = "supervisor's client"      // k3s, RKE2
	Konnectivity     = "konnectivity-server"      // k0s
)

// Part is a component of a distribution, with the flags that it is started with.
// Values that begin with "./" are paths below the data folder.
type Part struct {
	Name string
	// Shows are files; any of them tells that the component is there.
	Shows []string
	Flags map[string]string
	// IfThere are flags that are set only where their files are: each release of
	// a distribution has more of them. The first value whose file is there counts.
	IfThere map[string][]string
	// Want is whom the API server must take a client for that is none of
	// Kubernetes' own.
	Want trust.Identity
}

// Distribution is what a distribution has and does by design. See
// docs/layouts-distributions.md for the source of each fact.
type Distribution struct {
	Name string
	// Data is the data folder where no configuration names another.
	Data string
	// Server are the parts of a control plane, Node those of every node.
	Server, Node []Part
	// Authorities are those of a control plane, NodeAuthorities the copies that a
	// node without one has; below the data folder.
	Authorities, NodeAuthorities []AuthorityFile
	// Ports are those of the loopback address at which something of the node
	// serves the API beside the API server's own: a supervisor, a load balancer.
	Ports []string
	// Balanced tells that nodes without an API server reach those of the others
	// by a load balancer on loopback.
	Balanced bool
	// Fronted tells that all but the node's own components reach the API server
	// through the supervisor, which serves a certificate of its own.
	Fronted bool
	// Chained tells that the file of an authority that is not its own root holds
	// those above it, which then are anchors too.
	Chained bool
	// Modes are the permission bits that private files have by design.
	Modes uint32
	// Outlives is by how much a certificate may outlive its authority, where both
	// are made with the same life in one go.
	Outlives time.Duration
	// ByDesign are the findings that the distribution's own defaults would give:
	// they are told, but as no fault.
	ByDesign []string
	// Unseen are sources that are there and are not read: the path, and why.
	Unseen []UnseenSource
	// Mends are its commands.
	Mends Mends
}

// UnseenSource is a file or folder below the data folder that holds credentials
// or trust and that cannot be read, where it is there.
type UnseenSource struct{ Path, Reason string }

// Mends are a distribution's commands. UNIT stands for the systemd unit of the
// node, a server's or another's, DATA for the data folder.
type Mends struct {
	ServerUnit, NodeUnit string
	// Anew make leaves anew, by file.
	Anew []Mend
	// Authority replaces an authority, Leaves makes anew all that are not of the
	// authority that is there, Restart takes up what was changed.
	Authority, Leaves, Restart string
}

// Mend is the command that makes some files anew.
type Mend struct {
	Files   []string // patterns of path.Match below the data folder, or absolute
	Command string
	// Always tells that nothing else may be done to the file: it is written anew at
	// each start.
	Always bool
}

// distributions by the name of their layout.
var distributions = map[string]*Distribution{
	LayoutK3s: rancher("k3s"), LayoutRKE2: rancher("rke2"), LayoutK0s: &k0s, LayoutMicroK8s: &microK8s,
}

// DistributionNamed returns the distribution whose layout has a name, nil when
// it is none's.
func DistributionNamed(layout string) *Distribution { return distributions[layout] }

// ownClients are the components that only distributions have, and their flags.
func init() {
	for _, name := range []string{CloudController, NodeController, APIServerClient, SupervisorClient, Konnectivity} {
		flagUses[name] = []FlagUse{{Flag: "kubeconfig", Role: RoleKubeconfig}}
	}
	flagUses[Supervisor] = nil // its certificate is in a JSON file, which its reader takes apart
	flagUses[ControlAPI] = slices.Clone(servingFlags)
}

// Arrangement is what a reader knows of a node of a distribution.
type Arrangement struct {
	Data   string // the data folder
	Exists func(path string) bool
	// Partial are the components whose flags the reader knows in part: those of the
	// distribution complete them. Of others that are there already nothing is added.
	Partial []string
	// Without are the parts that do not run, whatever their files say.
	Without []string
}

// Arrange adds to a node of the distribution the components that its manifests,
// units and files of arguments do not configure, and its authorities. A flag that
// is there stays.
func (d *Distribution) Arrange(n *trust.Node, a Arrangement) {
	authorities := d.NodeAuthorities
	for _, p := range d.Server {
		if a.arrange(n, &p) {
			authorities = d.Authorities
		}
	}
	for _, p := range d.Node {
		a.arrange(n, &p)
	}
	for _, f := range authorities {
		full := trust.NodeAuthority{Name: f.Name, Certificate: path.Join(a.Data, f.File), Signs: slices.Clone(f.Signs)}
		if f.Key != "" {
			full.Key = path.Join(a.Data, f.Key)
		}
		n.Authorities = append(n.Authorities, full)
	}
}

// arrange tells whether the part is there.
func (a *Arrangement) arrange(n *trust.Node, p *Part) bool {
	at := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == p.Name })
	switch {
	case slices.Contains(a.Without, p.Name):
		return false
	case at >= 0 && !slices.Contains(a.Partial, p.Name):
		return true
	case at < 0 && !slices.ContainsFunc(p.Shows, func(f string) bool { return a.Exists(below(a.Data, f)) }):
		return false
	case at < 0:
		at = len(n.Components)
		n.Components = append(n.Components, trust.Component{Node: n.Name, Name: p.Name, Flags: map[string][]string{}})
	}
	for flag, value := range a.preset(p) {
		Preset(&n.Components[at], flag, value)
	}
	return true
}

// preset are the flags of a part on this node.
func (a *Arrangement) preset(p *Part) map[string]string {
	flags := map[string]string{}
	for flag, value := range p.Flags {
		flags[flag] = below(a.Data, value)
	}
	for flag, files := range p.IfThere {
		for _, f := range files {
			if at := below(a.Data, f); a.Exists(at) {
				flags[flag] = at
				break
			}
		}
	}
	return flags
}

// Preset gives a component a flag that no file sets, where it has it not.
func Preset(c *trust.Component, flag, value string) {
	if _, set := c.Flag(flag); set {
		return
	}
	if c.Settings == nil {
		c.Settings = map[string]trust.Place{}
	}
	c.Flags[flag], c.Settings[flag] = []string{value}, trust.Place{}
}

func below(data, value string) string {
	if rest, ok := strings.CutPrefix(value, "./"); ok {
		return path.Join(data, rest)
	}
	return value
}

// For returns the command that makes a file of a node anew, whether that is its
// only mend, and false where the distribution has none for it.
func (m *Mends) For(data, file string, server bool) (command string, always, ok bool) {
	for _, anew := range m.Anew {
		for _, pattern := range anew.Files {
			if ok, _ := path.Match(below(data, pattern), file); ok {
				return strings.ReplaceAll(m.OnUnit(anew.Command, server), "DATA", data), anew.Always, true
			}
		}
	}
	return "", false, false
}

// OnUnit names the node's unit in a command.
func (m *Mends) OnUnit(command string, server bool) string {
	unit := m.NodeUnit
	if server {
		unit = m.ServerUnit
	}
	return strings.ReplaceAll(command, "UNIT", unit)
}

// SelfMadeIssuer tells whether the name of an issuer is that which a kubelet
// gives the authority that it makes itself and forgets, NODE-ca@TIME
// (k8s.io/client-go/util/cert). Distributions call their authorities alike.
func SelfMadeIssuer(commonName string) bool {
	name, _, ok := strings.Cut(commonName, "-ca@")
	return ok && !slices.Contains([]string{"k3s-server", "k3s-client", "rke2-server", "rke2-client"}, name)
}
