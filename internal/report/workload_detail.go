package report

import (
	"crypto/x509"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/why"
)

// WorkloadDetail is one Certificate with all that is shown of it to people.
type WorkloadDetail struct {
	Workload
	At         time.Time
	Conditions []string          // in words
	Leaf       *x509.Certificate // of the Secret; nil where it was not seen
	Why        why.Answer
}

// Text prints what the Certificate says, the certificate that its Secret holds, and the
// chain with what it waits for.
func (d *WorkloadDetail) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	l := &lines{to: &b, palette: p}
	l.head("certificate", d.Namespace+"/"+d.Name)
	l.line("names", strings.Join(d.Names, ", "))
	l.line("duration", d.Duration)
	l.line("issuer", d.Issuer)
	l.line("secret", d.Secret)
	if d.Revision > 0 {
		l.line("revision", strconv.Itoa(d.Revision))
	}
	if d.Failures > 0 {
		l.line("failures", strconv.Itoa(d.Failures))
	}
	if d.RenewAt != nil {
		l.line("renewal", d.RenewAt.Format(time.RFC3339)+" ("+until(*d.RenewAt, d.At)+")")
	}
	for _, c := range d.Conditions {
		l.line("condition", c)
	}
	b.WriteByte('\n')
	if d.Leaf != nil {
		(&File{At: d.At}).certificate(l, "secret/"+d.Namespace+"/"+d.Secret, inspect.NewCertificate(d.Leaf))
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return NewWhyList(d.At, d.Why).Text(w, p)
}

// ConditionText puts a condition into words.
func ConditionText(kind, status, reason, message string) string {
	return fmt.Sprintf("%s %s, %s: %s", kind, status, orNone(reason), orNone(message))
}
