package acmeissuer

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// dnsServer is authoritative for a few zones, answers as a resolver for them too, and
// takes updates that are signed.
type dnsServer struct {
	address, port string

	mu      sync.Mutex
	zones   []string
	txt     map[string][]string
	cname   map[string]string
	a       map[string]string // all others are 127.0.0.1
	updates int
	mute    bool // updates are answered, and not carried out
}

const tsigName, tsigSecret = "acme-key.", "c2VjcmV0LXNlY3JldC1zZWNyZXQ="

func newDNSServer(t *testing.T, zones ...string) *dnsServer {
	t.Helper()
	d := &dnsServer{zones: zones, txt: map[string][]string{}, cname: map[string]string{}, a: map[string]string{}}
	// UDP and TCP need the same port.
	var packets net.PacketConn
	var stream net.Listener
	for try := 0; ; try++ {
		var err error
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		d.address = packets.LocalAddr().String()
		if stream, err = net.Listen("tcp", d.address); err == nil {
			break
		}
		_ = packets.Close()
		if try == 20 {
			t.Fatal(err)
		}
	}
	_, d.port, _ = net.SplitHostPort(d.address)
	provider := tsigKey("secret-secret-secret")
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: stream}} {
		s.Handler, s.TsigProvider = d, provider
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return d
}

func (d *dnsServer) zoneOf(name string) string {
	best := ""
	for _, z := range d.zones {
		if dns.IsSubDomain(z, name) && len(z) > len(best) {
			best = z
		}
	}
	return best
}

func (d *dnsServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r)
	if r.Opcode == dns.OpcodeUpdate {
		d.update(w, r, m)
	} else {
		d.query(r, m)
	}
	_ = w.WriteMsg(m)
}

func (d *dnsServer) update(w dns.ResponseWriter, r, m *dns.Msg) {
	tsig := r.IsTsig()
	switch {
	case tsig == nil || w.TsigStatus() != nil || !strings.EqualFold(tsig.Hdr.Name, tsigName):
		m.Rcode = dns.RcodeNotAuth
		return
	case !slices.Contains(d.zones, r.Question[0].Name):
		m.Rcode = dns.RcodeNotZone
	default:
		d.updates++
		for _, rr := range r.Ns {
			txt, ok := rr.(*dns.TXT)
			if !ok || d.mute {
				continue
			}
			name, value := strings.ToLower(txt.Hdr.Name), strings.Join(txt.Txt, "")
			d.txt[name] = slices.DeleteFunc(d.txt[name], func(v string) bool { return v == value })
			if txt.Hdr.Class == dns.ClassINET {
				d.txt[name] = append(d.txt[name], value)
			}
		}
	}
	m.SetTsig(tsigName, tsig.Algorithm, 300, int64(tsig.TimeSigned))
}

func (d *dnsServer) query(r, m *dns.Msg) {
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	zone := d.zoneOf(name)
	if zone == "" {
		m.Rcode = dns.RcodeNameError
		return
	}
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
	}
	if target := d.cname[name]; target != "" {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: target})
		if q.Qtype == dns.TypeCNAME {
			return
		}
		name = target
	}
	switch q.Qtype {
	case dns.TypeSOA:
		if name == zone {
			m.Answer = append(m.Answer, &dns.SOA{Hdr: header(name, dns.TypeSOA), Ns: "ns." + zone, Mbox: "mail." + zone, Serial: 1, Minttl: 1})
		}
	case dns.TypeNS:
		if name == zone {
			m.Answer = append(m.Answer, &dns.NS{Hdr: header(name, dns.TypeNS), Ns: "ns." + zone})
		}
	case dns.TypeA:
		address := d.a[name]
		if address == "" {
			address = "127.0.0.1"
		}
		m.Answer = append(m.Answer, &dns.A{Hdr: header(name, dns.TypeA), A: net.ParseIP(address)})
	case dns.TypeTXT:
		for _, v := range d.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: []string{v}})
		}
	}
}

// setMute has updates answered, and not carried out.
func (d *dnsServer) setMute(mute bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

// count returns how many updates were taken.
func (d *dnsServer) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.updates
}

// texts returns the TXT records that there are.
func (d *dnsServer) texts() map[string][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]string{}
	for name, values := range d.txt {
		if len(values) > 0 {
			all[name] = slices.Clone(values)
		}
	}
	return all
}
