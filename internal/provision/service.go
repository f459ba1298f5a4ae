package provision

import (
	"fmt"
	"math/big"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
)

// Service is the classic folder of two services that speak mutual TLS.
type Service struct {
	// Names are the server's names and addresses; the first is its common name.
	// All are subject alternative names: Go refuses names in the CN alone.
	Names []string
}

// KindSerial is the kind of an entry that is openssl's file of the last serial.
const KindSerial catalog.Kind = "serial"

const serviceCA = "ca"

// besideService are folders that hold something else than a service.
var besideService = []struct{ file, cause, help string }{
	{"etc/kubernetes", "is the root of a Kubernetes node", "point at a folder of its own, or leave out --layout service"},
	{"etc/rancher", "is the root of a k3s or RKE2 node", "point at a folder of its own"},
	{"server-ca.crt", "is a k3s certificates folder", "point at a folder of its own"},
	{"apiserver.crt", "is a certificates folder of Kubernetes", "point at a folder of its own"},
	{"front-proxy-ca.crt", "is a certificates folder of Kubernetes", "point at a folder of its own"},
	{"pki/ca.crt", "is a folder like /etc/kubernetes", "point at a folder of its own"},
}

// layService lists the slots of the service layout.
func (p *Planned) layService() {
	c := p.options.Cluster
	dns, addresses := catalog.SplitNames(p.options.Service.Names)
	p.slots = []*slot{
		{entry: catalog.Entry{Name: serviceCA, Kind: catalog.KindAuthority, Path: "/ca", CommonName: "service-ca", Validity: c.CAValidity}},
		{entry: catalog.Entry{Name: "ca.srl", Kind: KindSerial, Path: "/ca.srl"}},
		{entry: catalog.Entry{
			Name: "client", Kind: catalog.KindLeaf, Path: "/client/client", Authorities: []string{serviceCA},
			CommonName: "client", Client: true, Validity: c.Validity,
		}},
		{entry: catalog.Entry{
			Name: "server", Kind: catalog.KindLeaf, Path: "/server/server", Authorities: []string{serviceCA},
			CommonName: p.options.Service.Names[0], DNSNames: dns, Addresses: addresses, Server: true, Validity: c.Validity,
		}},
	}
}

// decideSerial numbers the certificates. Without a ca.srl they count on from a
// random number, and ca.srl holds the last, from which openssl x509 -req
// -CAserial counts on. A ca.srl that is there is openssl's: it stays, and
// random serials keep out of its way.
func (p *Planned) decideSerial() error {
	var file *slot
	for _, s := range p.slots {
		if s.entry.Kind == KindSerial {
			file = s
		}
	}
	if file.have.file != nil {
		file.action = Kept
		return nil
	}
	if !p.authorities[serviceCA].canSign() {
		file.action = Awaited
		return nil
	}
	last, err := issue.NewSerial()
	if err != nil {
		return err
	}
	for _, s := range p.slots {
		if s.pair.sign && s.entry.Kind == catalog.KindLeaf {
			last = new(big.Int).Add(last, big.NewInt(1))
			s.serial = last
		}
	}
	file.action, file.data = Made, encodeSerial(last)
	return nil
}

// encodeSerial writes a serial as openssl does: whole bytes in upper-case hex.
func encodeSerial(n *big.Int) []byte { return fmt.Appendf(nil, "%X\n", n.Bytes()) }
