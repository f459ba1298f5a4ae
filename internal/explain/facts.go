package explain

import (
	"encoding/hex"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Facts are what a line tells of the credential and the connection. What it does
// not tell is empty.
type Facts struct {
	// Dialled is the HOST:PORT that was dialled, Peer the HOST:PORT of the other
	// end as who served saw it.
	Dialled string `json:"dialled,omitempty"`
	Peer    string `json:"peer,omitempty"`
	// Name is what the certificate was to hold, Names what it holds.
	Name  string   `json:"name,omitempty"`
	Names []string `json:"names,omitempty"`
	// Serial is the certificate's in hexadecimal pairs, as openssl prints it;
	// KeyID and AuthorityKeyID are its key identifiers in hexadecimal.
	Serial         string `json:"serial,omitempty"`
	KeyID          string `json:"keyID,omitempty"`
	AuthorityKeyID string `json:"authorityKeyID,omitempty"`
	CommonName     string `json:"commonName,omitempty"`
	// Authority is the name of the authority that was tried.
	Authority string `json:"authority,omitempty"`
	// Now is the clock of who judged; NotAfter and NotBefore are the
	// certificate's bounds: RFC 3339.
	Now       string `json:"now,omitempty"`
	NotBefore string `json:"notBefore,omitempty"`
	NotAfter  string `json:"notAfter,omitempty"`
	// Path is a file that is named.
	Path string `json:"path,omitempty"`
	User string `json:"user,omitempty"`
}

const (
	hostForm = `\[?[A-Za-z0-9_.:%-]+\]?`
	addrForm = `(\[[0-9a-fA-F:.%]+\]:\d{1,5}|[A-Za-z0-9_.-]+:\d{1,5})`
	// Enough for the hosts and paths that components write.
	pathForm = `(/[A-Za-z0-9._@+/-]+[A-Za-z0-9_])`
)

// form is an expression and, as an expression is slow, texts one of which must be
// there for it to match.
type form struct {
	compiled func() *regexp.Regexp // when it is first needed: other commands start without
	needs    []string
}

func newForm(expression string, needs ...string) form {
	return form{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) }), needs}
}

// submatches is as FindStringSubmatch.
func (f form) submatches(text string) []string {
	if !slices.ContainsFunc(f.needs, func(n string) bool { return strings.Contains(text, n) }) {
		return nil
	}
	return f.compiled().FindStringSubmatch(text)
}

var (
	urlForm       = newForm(`https?://(?:[^/\s"'@]*@)?([^/\s"'@]+)`, `http`)
	dialForm      = newForm(`(?:dial tcp:? |Addr: "|failed to connect to |endpoint://|etcd-endpoints://[^/\s]+/|connect to |The connection to the server )`+addrForm, `dial tcp`, `Addr: "`, `connect`, `endpoint`)
	fromForm      = newForm(`(?:handshake error from |remote-addr="|remote address |from "?)`+addrForm, `from `, `remote`)
	betweenForm   = newForm(`(?:read|write) tcp `+addrForm+`->`+addrForm, `->`)
	serialForm    = newForm(`SN=(\d{1,60})\b`, `SN=`)
	keyIDForm     = newForm(`\bSKID=([0-9A-Fa-f:]{2,120})`, `SKID=`)
	authKeyForm   = newForm(`\bAKID=([0-9A-Fa-f:]{2,120})`, `AKID=`)
	candidateForm = newForm(`candidate authority certificate "([^"]*)"`, `candidate authority`)
	afterForm     = newForm(`current time (\S+) is after (\S+?)[,;"\])]*(?:\s|$)`, `is after`)
	beforeForm    = newForm(`current time (\S+) is before (\S+?)[,;"\])]*(?:\s|$)`, `is before`)
	validForm     = newForm(`certificate is valid for (.+), not (`+hostForm+`)`, `is valid for`)
	noIPForm      = newForm(`cannot validate certificate for (`+hostForm+`) because`, `cannot validate`)
	targetForm    = newForm(`target (?:host name|ipv[46] address) '([^']+)'`, `target `)
	noNameForm    = newForm(`(?:not valid for any names, but wanted to match|but none matched) (`+hostForm+`)`, `wanted to match`, `none matched`)
	dnsNamesForm  = newForm(`tls: "([^"]+)" does not match any of DNSNames \[([^\]]*)\]`, `DNSNames`)
	cnForm        = newForm(`subject with cn=(.+?) is not in the allowed list`, `with cn=`)
	userForm      = newForm(`[Uu]ser "([^"]+)" cannot|user=([^,)\s]+)`, `cannot`, `user=`)
	namedFileForm = newForm(`(?:open|stat|lstat|read|readlink|certificate in|config from|certs from|file|path=|dir=|certFile=|cert-file=|kubeconfig|key|from)\s*[ "':=]+`+pathForm, `/`)
	anyFileForm   = newForm(`(?:^|[\s"'=(,:])`+pathForm+`\.(?:crt|pem|key|pub|conf|kubeconfig|yaml|yml|cert|config)\b`, `/`)
)

// readFacts gathers what a text tells.
func readFacts(text string) Facts {
	f := Facts{
		Peer: first(fromForm, text), KeyID: plainHex(first(keyIDForm, text)), AuthorityKeyID: plainHex(first(authKeyForm, text)),
		Authority: first(candidateForm, text), CommonName: first(cnForm, text), Path: readPath(text),
		Name: trimHost(firstOf(text, noIPForm, noNameForm, targetForm)),
	}
	f.Dialled = first(dialForm, text)
	if f.Dialled == "" {
		f.Dialled = readURL(text)
	}
	if m := betweenForm.submatches(text); m != nil {
		// Who serves has the port that is known; the other's is of the moment.
		switch {
		case serves(m[2]):
			f.Dialled = m[2]
		case serves(m[1]):
			f.Peer = m[2]
		}
	}
	if n, ok := new(big.Int).SetString(first(serialForm, text), 10); ok {
		f.Serial = trust.SerialText(n)
	}
	if m := afterForm.submatches(text); m != nil {
		f.Now, f.NotAfter = rfc3339(m[1]), rfc3339(m[2])
	}
	if m := beforeForm.submatches(text); m != nil {
		f.Now, f.NotBefore = rfc3339(m[1]), rfc3339(m[2])
	}
	if m := validForm.submatches(text); m != nil {
		f.Name, f.Names = trimHost(m[2]), strings.Split(m[1], ", ")
	}
	if m := dnsNamesForm.submatches(text); m != nil {
		f.Name, f.Names = m[1], strings.Fields(strings.ReplaceAll(m[2], `"`, ""))
	}
	if m := userForm.submatches(text); m != nil {
		f.User = m[1] + m[2]
	}
	return f
}

func first(f form, text string) string {
	if m := f.submatches(text); m != nil {
		return m[1]
	}
	return ""
}

func firstOf(text string, forms ...form) string {
	for _, f := range forms {
		if found := first(f, text); found != "" {
			return found
		}
	}
	return ""
}

// readURL returns HOST:PORT of the first URL whose host is not a placeholder.
func readURL(text string) string {
	m := urlForm.submatches(text)
	if m == nil {
		return ""
	}
	if strings.Contains(m[1], "%2F") {
		return "" // a unix socket
	}
	host := strings.TrimRight(m[1], `.,;:)]}`)
	if strings.HasPrefix(m[1], "[") && !strings.Contains(host, "]") {
		host += "]"
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host
	}
	if strings.HasPrefix(m[0], "http:") {
		return host + ":80"
	}
	return host + ":443"
}

func readPath(text string) string {
	if m := anyFileForm.compiled().FindStringSubmatchIndex(text); m != nil {
		return text[m[2]:m[1]]
	}
	return first(namedFileForm, text)
}

func rfc3339(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// plainHex is hexadecimal without colons, in capitals; empty when it is none.
func plainHex(text string) string {
	text = strings.ReplaceAll(text, ":", "")
	if _, err := hex.DecodeString(text); err != nil {
		return ""
	}
	return strings.ToUpper(text)
}

// trimHost takes brackets and a full stop off a host.
func trimHost(host string) string {
	return strings.Trim(strings.TrimRight(host, `.,:;"`), "[]")
}

// hostOf is the host of HOST:PORT without brackets, in the form in which
// certificates and flags are compared.
func hostOf(address string) string {
	host := address
	if i := strings.LastIndexByte(address, ':'); i > strings.LastIndexByte(address, ']') {
		host = address[:i]
	}
	return plainHost(host)
}

// plainHost is a host in lower case, an address in its shortest form.
func plainHost(host string) string {
	host = strings.ToLower(strings.Trim(host, "[]"))
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return strings.TrimSuffix(host, ".")
}

func portOf(address string) string {
	if i := strings.LastIndexByte(address, ':'); i > strings.LastIndexByte(address, ']') {
		return address[i+1:]
	}
	return ""
}

// ofCredential tells whether a path is one at which credentials are kept.
func ofCredential(path string) bool {
	for _, end := range []string{".crt", ".pem", ".key", ".pub", ".conf", ".cert", ".kubeconfig", "/token"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	for _, part := range []string{"/pki", "/tls", "/ssl", "/certs", "/cred", "/secrets/kubernetes.io/", "kubeconfig"} {
		if strings.Contains(path, part) {
			return true
		}
	}
	return false
}
