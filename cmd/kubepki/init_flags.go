package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
)

// clusterFlags describe a cluster on the command line, named as kubeadm's
// where kubeadm has them.
type clusterFlags struct {
	config                                                  string
	advertiseAddress, endpoint, serviceCIDR, podCIDR        string
	dnsDomain, nodeName, certDir, version, algorithm, shape string
	bindPort                                                int
	sans, controlPlanes, workers                            []string
	validity, caValidity                                    string
	kubeletAuthority, kubeProxy                             bool
}

func (f *clusterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.config, "config", "", "configuration file: kubeadm's, or a Cluster of "+config.APIVersion+" (- is standard input)")
	flags.StringVar(&f.advertiseAddress, "apiserver-advertise-address", "", "address of the node's API server (default: an address of this machine)")
	flags.IntVar(&f.bindPort, "apiserver-bind-port", catalog.DefaultBindPort, "port of the API server")
	flags.StringSliceVar(&f.sans, "apiserver-cert-extra-sans", nil, "more names and addresses of the API server")
	flags.StringVar(&f.endpoint, "control-plane-endpoint", "", "host or host:port at which clients reach the control plane")
	flags.StringVar(&f.serviceCIDR, "service-cidr", catalog.DefaultServiceSubnet, "subnet of services; two with a comma for dual-stack")
	flags.StringVar(&f.podCIDR, "pod-network-cidr", "", "subnet of pods")
	flags.StringVar(&f.dnsDomain, "service-dns-domain", catalog.DefaultDNSDomain, "DNS domain of services")
	flags.StringVar(&f.nodeName, "node-name", "", "name of the node (default: the host name)")
	flags.StringVar(&f.certDir, "cert-dir", catalog.DefaultCertificatesDir, "certificates folder on the nodes")
	flags.StringVar(&f.version, "kubernetes-version", catalog.DefaultVersion, "version of the components")
	flags.StringVar(&f.algorithm, "key-algorithm", "RSA-2048", "RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384 or Ed25519")
	flags.StringVar(&f.validity, "validity", "8760h", "life of certificates, like 8760h or 365d")
	flags.StringVar(&f.caValidity, "ca-validity", "87600h", "life of authorities")
	flags.StringVar(&f.shape, "authorities", "separate", "separate, intermediate (below one root) or shared")
	flags.BoolVar(&f.kubeletAuthority, "kubelet-authority", false, "give kubelets an authority of their own")
	flags.BoolVar(&f.kubeProxy, "kube-proxy", false, "make kube-proxy.conf with a certificate")
	flags.StringArrayVar(&f.controlPlanes, "control-plane", nil, "NAME=ADDRESS of a control plane (repeatable, with --out)")
	flags.StringArrayVar(&f.workers, "worker", nil, "NAME=ADDRESS of a worker (repeatable, with --out)")
}

// besideConfig are the flags that add to a configuration file instead of
// contradicting it; as with kubeadm, --node-name is one of them.
var besideConfig = []string{"config", "node-name", "kubelet-authority", "kube-proxy", "authorities",
	"root", "out", "csr-only", "manifests", "dry-run", "at", "output", "layout", "node", "external-ca", "help"}

// read returns the cluster that the flags, or the configuration file, describe.
func (f *clusterFlags) read(flags *pflag.FlagSet) (*catalog.Cluster, error) {
	if f.config == "" {
		return f.cluster()
	}
	var mixed []string
	flags.Visit(func(g *pflag.Flag) {
		if !slices.Contains(besideConfig, g.Name) {
			mixed = append(mixed, g.Name)
		}
	})
	if len(mixed) > 0 {
		return nil, usagef("can not mix '--config' with arguments [%s]", strings.Join(mixed, " "))
	}
	data, err := f.load()
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(f.config, data, f.host())
	if err != nil {
		return nil, err
	}
	return c, f.complement(flags, c)
}

// complement adds what kubeadm's configuration has no field for.
func (f *clusterFlags) complement(flags *pflag.FlagSet, c *catalog.Cluster) error {
	if flags.Changed("authorities") {
		shape := catalog.Shape(f.shape)
		if c.Shape != catalog.Separate && c.Shape != shape {
			return usagef("--authorities %s contradicts authorities.shape %s of %s", f.shape, c.Shape, f.config)
		}
		if !slices.Contains([]catalog.Shape{catalog.Separate, catalog.Intermediate, catalog.Shared}, shape) {
			return usagef("--authorities: %q is not separate, intermediate or shared", f.shape)
		}
		c.Shape = shape
	}
	c.KubeletAuthority = c.KubeletAuthority || f.kubeletAuthority
	c.KubeProxy = c.KubeProxy || f.kubeProxy
	if flags.Changed("node-name") && !slices.ContainsFunc(c.ControlPlanes, func(n catalog.ControlPlane) bool { return n.Name == strings.ToLower(f.nodeName) }) {
		if len(c.ControlPlanes) != 1 {
			return usagef("--node-name %q is no control plane of %s", f.nodeName, f.config)
		}
		c.ControlPlanes[0].Name = f.nodeName
		_, err := config.Complete(c, config.Host{})
		return asUsage(err)
	}
	return nil
}

// load reads the configuration, and no more of it than a configuration may have.
func (f *clusterFlags) load() ([]byte, error) {
	in := io.Reader(os.Stdin)
	if f.config != "-" {
		file, err := os.Open(f.config)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil && info.IsDir() {
			return nil, fmt.Errorf("configuration %s is a folder", f.config)
		}
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, config.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration %s: %w", f.config, err)
	}
	return data, nil
}

func (f *clusterFlags) cluster() (*catalog.Cluster, error) {
	c := &catalog.Cluster{
		KubernetesVersion: f.version, ControlPlaneEndpoint: f.endpoint, CertificatesDir: f.certDir,
		ServiceSubnet: f.serviceCIDR, PodSubnet: f.podCIDR, DNSDomain: f.dnsDomain, CertSANs: f.sans,
		Shape: catalog.Shape(f.shape), KubeletAuthority: f.kubeletAuthority, Algorithm: f.algorithm, KubeProxy: f.kubeProxy,
	}
	var err error
	if c.Validity, err = parseLife("--validity", f.validity); err != nil {
		return nil, err
	}
	if c.CAValidity, err = parseLife("--ca-validity", f.caValidity); err != nil {
		return nil, err
	}
	if err := f.nodes(c); err != nil {
		return nil, err
	}
	c, err = config.Complete(c, f.host())
	return c, asUsage(err)
}

func (f *clusterFlags) nodes(c *catalog.Cluster) error {
	for _, text := range f.controlPlanes {
		name, a, err := parseNode("--control-plane", text)
		if err != nil {
			return err
		}
		c.ControlPlanes = append(c.ControlPlanes, catalog.ControlPlane{Name: name, Address: a, BindPort: f.bindPort})
	}
	for _, text := range f.workers {
		name, a, err := parseNode("--worker", text)
		if err != nil {
			return err
		}
		c.Workers = append(c.Workers, catalog.Worker{Name: name, Address: a})
	}
	if len(c.ControlPlanes) > 0 {
		if f.nodeName != "" || f.advertiseAddress != "" {
			return usagef("--control-plane names nodes and addresses: leave out --node-name and --apiserver-advertise-address")
		}
		return nil
	}
	if len(c.Workers) > 0 && (f.nodeName == "" || f.advertiseAddress == "") {
		return usagef("--control-plane is not set: with --worker, the control planes are named too, as NAME=ADDRESS")
	}
	n := catalog.ControlPlane{Name: f.nodeName, BindPort: f.bindPort}
	if f.advertiseAddress != "" {
		a, err := netip.ParseAddr(f.advertiseAddress)
		if err != nil || a.Zone() != "" {
			return usagef("--apiserver-advertise-address: %q is not an IP address", f.advertiseAddress)
		}
		n.Address = a.Unmap()
	}
	if n.BindPort == 0 {
		return usagef("--apiserver-bind-port: 0 is not between 1 and 65535")
	}
	c.ControlPlanes = []catalog.ControlPlane{n}
	return nil
}

// parseNode reads NAME=ADDRESS.
func parseNode(flag, text string) (string, netip.Addr, error) {
	name, address, ok := strings.Cut(text, "=")
	if !ok {
		return "", netip.Addr{}, usagef("%s %q is not NAME=ADDRESS", flag, text)
	}
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return "", netip.Addr{}, usagef("%s %q: %q is not an IP address", flag, text, address)
	}
	return name, a.Unmap(), nil
}

// parseLife reads a duration in hours and minutes, or in days: 365d.
func parseLife(flag, text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	// What is left are days, and hours that are too many: time.Duration ends at
	// 292 years.
	for unit, hours := range map[string]float64{"d": 24, "h": 1} {
		number, ok := strings.CutSuffix(text, unit)
		n, err := strconv.ParseFloat(number, 64)
		switch {
		case !ok || err != nil || !(n > 0):
		case n*hours > 200*365*24:
			return 0, usagef("%s %q is longer than 200 years", flag, text)
		case unit == "d":
			return time.Duration(n * float64(24*time.Hour)), nil
		}
	}
	return 0, usagef("%s %q is not a life like 8760h or 365d", flag, text)
}

func (f *clusterFlags) host() config.Host {
	name := os.Hostname
	if f.nodeName != "" {
		name = func() (string, error) { return f.nodeName, nil }
	}
	return config.Host{Name: name, Address: hostAddress}
}

// hostAddress returns the first address of this machine that others may reach.
func hostAddress() (netip.Addr, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr().Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("it has none but loopback")
}

// asUsage makes errors about flags errors of usage.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}
