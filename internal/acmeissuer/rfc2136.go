package acmeissuer

import (
	"context"
	"crypto/hmac"
	"crypto/md5"  // #nosec G501 -- the default of spec.acme.solvers[].dns01.rfc2136.tsigAlgorithm, by its API
	"crypto/sha1" // #nosec G505 -- one of its choices
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	"github.com/miekg/dns"
)

// recordTTL is how long resolvers may keep a record, in seconds.
const recordTTL = 60

// updates writes records by dynamic updates (RFC 2136), signed by TSIG (RFC 8945).
type updates struct {
	config    *cmacme.ACMEIssuerDNS01ProviderRFC2136
	namespace string
	secrets   func(ctx context.Context, namespace, name, field string) ([]byte, error)
}

func (u *updates) insert(ctx context.Context, _ *cmacme.Challenge, r record) error {
	return u.send(ctx, r, (*dns.Msg).Insert)
}

func (u *updates) remove(ctx context.Context, _ *cmacme.Challenge, r record) error {
	return u.send(ctx, r, (*dns.Msg).Remove)
}

func (u *updates) send(ctx context.Context, r record, change func(*dns.Msg, []dns.RR)) error {
	server, err := serverAddress(u.config.Nameserver)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(r.zone)
	change(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: r.name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}, Txt: []string{r.value},
	}})
	client := &dns.Client{Net: "udp", Timeout: 2 * queryTimeout}
	if u.config.Protocol == cmacme.RFC2136UpdateProtocolTCP {
		client.Net = "tcp"
	}
	if err := u.sign(ctx, client, m); err != nil {
		return err
	}
	in, _, err := client.ExchangeContext(ctx, m, server)
	if err != nil {
		return fmt.Errorf("the update of %s at %s: %w", r.name, server, err)
	}
	if in.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("the update of %s in the zone %s at %s is answered with %s%s", r.name, r.zone, server, dns.RcodeToString[in.Rcode], adviceOn(in.Rcode))
	}
	return nil
}

// adviceOn says what an answer to an update usually means.
func adviceOn(rcode int) string {
	switch rcode {
	case dns.RcodeRefused:
		return ": the server lets this key not write there"
	case dns.RcodeNotAuth:
		return ": the server does not know the key, or not the zone"
	case dns.RcodeNotZone, dns.RcodeNameError:
		return ": the server has no such zone"
	}
	return ""
}

// sign has the message signed, and the answer's signature verified.
func (u *updates) sign(ctx context.Context, client *dns.Client, m *dns.Msg) error {
	ref := u.config.TSIGSecret
	if u.config.TSIGKeyName == "" && ref.Name == "" {
		return nil
	}
	if u.config.TSIGKeyName == "" || ref.Name == "" {
		return errors.New("dns01.rfc2136: tsigKeyName and tsigSecretSecretRef need each other")
	}
	algorithm, ok := map[string]string{"": dns.HmacMD5, "HMACMD5": dns.HmacMD5, "HMACSHA1": dns.HmacSHA1, "HMACSHA256": dns.HmacSHA256, "HMACSHA512": dns.HmacSHA512}[strings.ToUpper(u.config.TSIGAlgorithm)]
	if !ok {
		return fmt.Errorf("dns01.rfc2136.tsigAlgorithm %q is none of HMACMD5, HMACSHA1, HMACSHA256 and HMACSHA512", u.config.TSIGAlgorithm)
	}
	data, err := u.secrets(ctx, u.namespace, ref.Name, ref.Key)
	if err != nil {
		return fmt.Errorf("dns01.rfc2136.tsigSecretSecretRef: %s", err.Error())
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(key) == 0 {
		return fmt.Errorf("dns01.rfc2136.tsigSecretSecretRef: Secret %s/%s: %s: the key is not base64", u.namespace, ref.Name, ref.Key)
	}
	client.TsigProvider = tsigKey(key)
	m.SetTsig(dns.Fqdn(strings.ToLower(u.config.TSIGKeyName)), algorithm, 300, time.Now().Unix())
	return nil
}

// serverAddress completes the address of a name server with its port.
func serverAddress(s string) (string, error) {
	if s == "" {
		return "", errors.New("dns01.rfc2136.nameserver is empty")
	}
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s, nil
	}
	return net.JoinHostPort(strings.Trim(s, "[]"), "53"), nil
}

// tsigKey signs messages. The library's own does it for all algorithms but MD5, which
// is the default of the API.
type tsigKey []byte

var _ dns.TsigProvider = tsigKey(nil)

func (k tsigKey) Generate(message []byte, t *dns.TSIG) ([]byte, error) {
	hashes := map[string]func() hash.Hash{dns.HmacMD5: md5.New, dns.HmacSHA1: sha1.New, dns.HmacSHA256: sha256.New, dns.HmacSHA512: sha512.New}
	h, ok := hashes[dns.CanonicalName(t.Algorithm)]
	if !ok {
		return nil, dns.ErrKeyAlg
	}
	mac := hmac.New(h, k)
	mac.Write(message)
	return mac.Sum(nil), nil
}

func (k tsigKey) Verify(message []byte, t *dns.TSIG) error {
	want, err := k.Generate(message, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(want, got) {
		return dns.ErrSig
	}
	return nil
}
