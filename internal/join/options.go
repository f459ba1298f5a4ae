package join

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Where the kubelet and kubeadm have a node's credential (k/k
// cmd/kubelet/app/options/options.go, cmd/kubeadm/app/constants/constants.go).
// All are paths on the node.
const (
	Kubeconfig          = "/etc/kubernetes/kubelet.conf"
	BootstrapKubeconfig = "/etc/kubernetes/bootstrap-kubelet.conf"
	CertDir             = "/var/lib/kubelet/pki"
	Prefix              = "kubelet-client"
	AuthorityFile       = "/etc/kubernetes/pki/ca.crt"
)

// Options say whose credential it is, and where its files stand. Paths are
// absolute and the node's.
type Options struct {
	Root       string // folder that stands for the node's /
	Kubeconfig string // is written by Join, and read by all
	CertDir    string // folder of the dated files
	Prefix     string // of their names
	// AuthorityFile is written with the cluster's authority by Join unless it is
	// there, as kubeadm join does; empty: it is not.
	AuthorityFile string

	// Identity is asked for by Join. With AnyIdentity, a credential of another
	// identity that is already there will do.
	Identity    Identity
	AnyIdentity bool

	// BootstrapKubeconfig is what to join with, and what is removed afterwards
	// unless KeepBootstrap. Bootstrap is used instead of it when not nil.
	BootstrapKubeconfig string
	KeepBootstrap       bool
	Bootstrap           *clientcmdapi.Config

	Lifetime time.Duration // asked for; 0: as the signer likes. At least 10 minutes
	Timeout  time.Duration // of one Join or Rotate; 0: none
	// Say takes a line of talk, without its end; nil: nobody listens. It may be
	// called from several goroutines.
	Say func(string)

	on func(*os.Root) changes // tests: the disk
}

// Outcome is what a run came to.
type Outcome string

// The outcomes.
const (
	Joined        Outcome = "joined"
	AlreadyJoined Outcome = "already-joined"
	Rotated       Outcome = "rotated"
	NotDue        Outcome = "not-due"
)

// Result is what a run came to, and the credential that is there now.
type Result struct {
	Outcome  Outcome
	Identity Identity
	Server   string            // URL
	Leaf     *x509.Certificate // of the client
	Due      time.Time         // when Rotate will want another
	Request  string            // name of the CertificateSigningRequest; empty: none was needed
	// BootstrapRemoved tells that the bootstrap kubeconfig was removed.
	BootstrapRemoved bool
}

// client is one run.
type client struct {
	o     Options
	disk  *disk
	store store
}

func open(o Options) (*client, error) {
	if o.on == nil {
		o.on = func(dir *os.Root) changes { return realDisk{dir} }
	}
	d, err := openDisk(o.Root, o.on)
	if err != nil {
		return nil, err
	}
	return &client{o: o, disk: d, store: store{disk: d, folder: o.CertDir, prefix: o.Prefix}}, nil
}

func (c *client) close() { c.disk.dir.Close() }

func (c *client) say(format string, args ...any) {
	if c.o.Say != nil {
		c.o.Say(fmt.Sprintf(format, args...))
	}
}
