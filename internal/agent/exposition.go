package agent

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// DefaultMaxCertificates is how many certificates have series.
const DefaultMaxCertificates = 20_000

// certificateFamily is one metric of certificates, by the names of
// x509-certificate-exporter (enix/x509-certificate-exporter,
// pkg/registry/collector.go of v4).
type certificateFamily struct {
	name     string
	relative bool // changes at each scrape
	value    func(f brief.Facts, now int64) int64
}

func certificateFamilies() []certificateFamily {
	return []certificateFamily{
		{"x509_cert_not_after", false, func(f brief.Facts, _ int64) int64 { return f.Until }},
		{"x509_cert_not_before", false, func(f brief.Facts, _ int64) int64 { return f.From }},
		{"x509_cert_expired", false, func(f brief.Facts, now int64) int64 { return oneIf(now > f.Until) }},
		{"x509_cert_expires_in_seconds", true, func(f brief.Facts, now int64) int64 { return f.Until - now }},
		{"x509_cert_valid_since_seconds", true, func(f brief.Facts, now int64) int64 { return now - f.From }},
		{faultFamily, false, func(brief.Facts, int64) int64 { return 0 }},
	}
}

const faultFamily = "x509_cert_error"

func (f *certificateFamily) help() string {
	if f.name == faultFamily {
		return "1 where a certificate should be and what is there cannot be read or parsed, 0 for one that was."
	}
	return report.MetricHelp(f.name)
}

func oneIf(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// exposition writes the series of certificates in Prometheus' text format, one
// after the other: a registry would hold some sixty thousand of them, with all
// their labels, for the time of each scrape.
type exposition struct {
	w     *bufio.Writer
	line  []byte
	state *Snapshot
	most  int
	// alike are how many certificates have the labels of a hash: those that share
	// theirs get a label more, as two series of one name would make Prometheus refuse
	// the whole scrape.
	alike map[uint64]int
	seed  maphash.Seed
	left  int // certificates beyond most
}

func writeCertificates(w io.Writer, s *Snapshot, most int, relative bool) (left int, err error) {
	e := &exposition{w: bufio.NewWriterSize(w, 32<<10), state: s, most: most, alike: map[uint64]int{}, seed: maphash.MakeSeed()}
	e.each(func(c brief.Certificate) { e.alike[e.hash(c)]++ })
	for _, f := range certificateFamilies() {
		if relative || !f.relative {
			e.family(f)
		}
	}
	return e.left, e.w.Flush()
}

// each calls f with the certificates that have series.
func (e *exposition) each(f func(brief.Certificate)) {
	n := 0
	e.left = 0
	e.state.Each(func(c brief.Certificate) bool {
		if n++; n > e.most {
			e.left++
			return true
		}
		f(c)
		return true
	})
}

func (e *exposition) hash(c brief.Certificate) uint64 {
	facts := c.Facts.Value()
	e.line = appendLabels(e.line[:0], c.Place, &facts)
	return maphash.Bytes(e.seed, e.line)
}

func (e *exposition) family(f certificateFamily) {
	now := e.state.At.Unix()
	e.header(f)
	written := map[string]bool{} // of those that are alike
	e.each(func(c brief.Certificate) {
		facts := c.Facts.Value()
		e.line = append(append(e.line[:0], f.name...), '{')
		start := len(e.line)
		e.line = appendLabels(e.line, c.Place, &facts)
		if e.alike[maphash.Bytes(e.seed, e.line[start:])] > 1 {
			which := discriminator(c)
			if written[which] {
				return // one file that was named twice
			}
			written[which] = true
			e.line = appendLabel(e.line, "discriminator", which)
		}
		e.end(f.value(facts, now))
	})
	if f.name == faultFamily {
		e.faults(f)
	}
}

func (e *exposition) header(f certificateFamily) {
	for _, text := range []string{"# HELP ", f.name, " ", f.help(), "\n# TYPE ", f.name, " gauge\n"} {
		_, _ = e.w.WriteString(text) // the error shows at Flush
	}
}

// end ends the labels of a line, and writes it with its value.
func (e *exposition) end(value int64) {
	if e.line[len(e.line)-1] == ',' {
		e.line = e.line[:len(e.line)-1]
	}
	e.line = strconv.AppendInt(append(e.line, "} "...), value, 10)
	_, _ = e.w.Write(append(e.line, '\n')) // the error shows at Flush
}

// maxFaults bounds the series of places that could not be read.
const maxFaults = 1000

func (e *exposition) faults(f certificateFamily) {
	written := map[trust.Place]bool{}
	for _, s := range e.state.Sources() {
		for _, fault := range s.Faults {
			if len(written) == maxFaults || written[fault.Place] {
				continue
			}
			written[fault.Place] = true
			e.line = append(append(e.line[:0], f.name...), '{')
			e.line = appendLabels(e.line, fault.Place, nil)
			e.end(1)
		}
	}
}

// discriminator tells apart certificates whose labels are the same.
func discriminator(c brief.Certificate) string {
	h := sha256.New()
	facts := c.Facts.Value()
	h.Write(facts.Print[:])
	h.Write([]byte(c.Place.String()))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(c.Index)))
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// appendLabels appends the labels of a place, and of the certificate there unless that
// is nil. Those without a value are left out: Prometheus takes them for the same.
func appendLabels(b []byte, p trust.Place, facts *brief.Facts) []byte {
	b = appendPlace(b, p)
	if facts == nil {
		return b
	}
	b = appendLabel(b, "serial_number", facts.Serial)
	issuer, subject := facts.Issuer.Value(), facts.Subject.Value()
	for _, n := range [...]struct{ label, value string }{
		{"issuer_C", issuer.C}, {"issuer_ST", issuer.ST}, {"issuer_L", issuer.L}, {"issuer_O", issuer.O}, {"issuer_OU", issuer.OU}, {"issuer_CN", issuer.CN},
		{"subject_C", subject.C}, {"subject_ST", subject.ST}, {"subject_L", subject.L}, {"subject_O", subject.O}, {"subject_OU", subject.OU}, {"subject_CN", subject.CN},
	} {
		b = appendLabel(b, n.label, n.value)
	}
	return b
}

// appendPlace appends where a certificate stands, by the labels of
// x509-certificate-exporter (pkg/registry/labels.go of v4).
func appendPlace(b []byte, p trust.Place) []byte {
	if !p.InAPI() {
		b = appendLabel(b, "node", p.Node)
		b = appendLabel(b, "filename", path.Base(p.Path))
		b = appendLabel(b, "filepath", p.Path)
		kind, key := report.Embedded(p.Field)
		return appendLabel(appendLabel(b, "embedded_kind", kind), "embedded_key", key)
	}
	resource, name, _ := strings.Cut(p.Path, "/")
	switch resource {
	case "secret", "configmap":
		namespace, name, _ := strings.Cut(name, "/")
		b = appendLabel(b, resource+"_namespace", namespace)
		b = appendLabel(b, resource+"_name", name)
		return appendLabel(b, resource+"_key", inBrackets(p.Field))
	}
	kind := caBundleKinds[resource]
	if kind == "" {
		return appendLabel(b, "filepath", p.Path)
	}
	b = appendLabel(b, "cabundle_resource_kind", kind)
	b = appendLabel(b, "cabundle_resource_name", name)
	return appendLabel(b, "cabundle_entry", inBrackets(p.Field))
}

// caBundleKinds are the kinds of objects with a caBundle, by the resources of places.
var caBundleKinds = map[string]string{
	"validatingwebhookconfiguration": "ValidatingWebhookConfiguration", "mutatingwebhookconfiguration": "MutatingWebhookConfiguration",
	"apiservice": "APIService", "customresourcedefinition": "CustomResourceDefinition",
}

// inBrackets is the key in a field such as data[tls.crt]; "": none.
func inBrackets(field string) string {
	_, rest, _ := strings.Cut(field, "[")
	if i := strings.LastIndexByte(rest, ']'); i >= 0 {
		return rest[:i]
	}
	return ""
}

// maxLabel is how many characters the value of a label has, as in verify -o
// prometheus.
const maxLabel = 256

// appendLabel appends a label with a value that may be foreign.
func appendLabel(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(b, name...), '=', '"')
	for _, r := range clean(value) {
		switch r {
		case '\\', '"':
			b = append(b, '\\', byte(r))
		default: // clean leaves no line feed
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"', ',')
}

// clean makes a foreign text fit for a label, and most do not have to be made.
func clean(value string) string {
	if len(value) <= maxLabel {
		plain := true
		for i := range len(value) {
			plain = plain && value[i] >= 0x20 && value[i] < 0x7f
		}
		if plain {
			return value
		}
	}
	return report.Label(value)
}
