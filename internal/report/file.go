package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/inspect"
)

// File is the answer of `kubepki show FILE` for one file.
type File struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Path       string    `json:"path"` // as given; - is standard input
	At         time.Time `json:"at"`
	*inspect.Description
}

// NewFile puts a description into its public form.
func NewFile(path string, d *inspect.Description, at time.Time) *File {
	return &File{APIVersion: APIVersion, Kind: "File", Path: path, At: at.UTC().Truncate(time.Second), Description: d}
}

// List is what several answers make together.
type List struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Items      []any  `json:"items"`
}

// NewList puts answers into one document.
func NewList(items []any) *List { return &List{APIVersion: APIVersion, Kind: "List", Items: items} }

// Text prints a file for people.
func (f *File) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", p.Bold(Plain(f.Path)), f.Format)
	for i := range f.Parts {
		b.WriteByte('\n')
		f.part(&lines{to: &b, palette: p}, &f.Parts[i])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// lines prints a heading and labelled lines below it.
type lines struct {
	to      *strings.Builder
	palette Palette
}

func (l *lines) head(kind, where string) {
	fmt.Fprintln(l.to, strings.TrimRight(l.palette.Bold(Plain(kind))+" "+Plain(where), " "))
}

// line prints one labelled line; nothing without a value.
func (l *lines) line(label, value string) {
	if value != "" {
		fmt.Fprintf(l.to, "  %-12s %s\n", label, Plain(value))
	}
}

func (f *File) part(l *lines, p *inspect.Part) {
	where := p.Field
	if p.Field == "" && p.Line > 1 {
		where = fmt.Sprintf("line %d", p.Line)
	}
	switch {
	case p.Certificate != nil:
		f.certificate(l, where, p.Certificate)
	case p.Request != nil:
		request(l, where, p.Request)
	case p.Key != nil:
		l.head(string(p.Kind), where)
		f.key(l, p)
	case p.Token != nil:
		tokenText(l, where, p.Token, f.At, "not verified")
	case p.Context != nil:
		context(l, p.Context)
	case p.Object != nil:
		object(l, p.Object)
	case p.Component != nil:
		component(l, p.Component)
	default:
		l.head(string(p.Kind), where)
	}
	l.line("note", p.Note)
	if p.Problem != "" {
		fmt.Fprintf(l.to, "  %-12s %s\n", l.palette.Red("problem"), Plain(p.Problem))
	}
}

func (f *File) certificate(l *lines, where string, c *inspect.Certificate) {
	kind := "certificate"
	if c.IsAuthority {
		kind = "authority"
	}
	l.head(kind, where)
	l.line("subject", c.Subject)
	issuer := c.Issuer
	if c.SelfSigned {
		issuer += " (self-signed)"
	}
	l.line("issuer", issuer)
	l.line("serial", c.Serial)
	f.validity(l, c)
	l.line("names", strings.Join(c.All(), ", "))
	l.line("usages", strings.Join(append(append([]string{}, c.Usages...), c.KeyUsages...), ", "))
	if c.IsAuthority && c.PathLength != nil {
		l.line("path length", fmt.Sprint(*c.PathLength))
	}
	l.line("constraints", strings.Join(c.NameConstraints, ", "))
	l.line("key", c.KeyAlgorithm)
	l.line("signature", c.SignatureAlgorithm)
	l.line("key id", c.SubjectKeyID)
	l.line("issuer's id", c.AuthorityKeyID)
	l.line("sha256", c.SHA256)
	if c.IsAuthority {
		l.line("discovery", c.DiscoveryHash)
	} else {
		l.line("key sha256", c.PublicKeySHA256)
	}
}

func (f *File) validity(l *lines, c *inspect.Certificate) {
	left := Left(c.NotBefore, c.NotAfter, f.At)
	if strings.Contains(left, " ") {
		left = l.palette.Red(left)
	} else {
		left += " left"
	}
	fmt.Fprintf(l.to, "  %-12s %s to %s (%s)\n", "valid", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), left)
}

func request(l *lines, where string, r *inspect.Request) {
	l.head("request", where)
	l.line("subject", r.Subject)
	l.line("names", strings.Join(append(r.All(), r.OtherNames...), ", "))
	l.line("usages", strings.Join(append(append([]string{}, r.Usages...), r.KeyUsages...), ", "))
	l.line("extensions", strings.Join(r.OtherExtensions, ", "))
	if r.IsAuthority {
		l.line("asks", "to become an authority (CA:TRUE)")
	}
	l.line("key", r.KeyAlgorithm)
	l.line("key sha256", r.PublicKeySHA256)
	if r.SignatureValid {
		l.line("signature", "made by the key of the request")
	} else {
		fmt.Fprintf(l.to, "  %-12s %s\n", "signature", l.palette.Red("not made by the key of the request"))
	}
	if r.Refused != "" {
		l.line("refused", "kubepki issue would not sign it: "+r.Refused)
	}
}

// key says of a private or public key whose it is, when the file tells.
func (f *File) key(l *lines, p *inspect.Part) {
	l.line("algorithm", p.Key.Algorithm)
	l.line("key sha256", p.Key.PublicKeySHA256)
	if p.Key.PublicKeySHA256 == "" {
		return
	}
	for i := range f.Parts {
		if c := f.Parts[i].Certificate; c != nil && c.PublicKeySHA256 == p.Key.PublicKeySHA256 {
			l.line("belongs to", c.Subject)
			return
		}
	}
}

func context(l *lines, c *inspect.Context) {
	name := c.Name
	if c.Current {
		name += " (current)"
	}
	l.head("context", name)
	l.line("cluster", c.Cluster)
	l.line("server", c.Server)
	l.line("server name", c.ServerName)
	l.line("proxy", c.ProxyURL)
	l.line("trusts", c.TrustedBy)
	l.line("user", c.User)
	l.line("shows", strings.Join(c.Shows, ", "))
	l.line("as", c.As)
	l.line("namespace", c.Namespace)
}

func object(l *lines, o *inspect.Object) {
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	l.head(o.Kind, name)
	l.line("type", o.Type)
	if o.Expires != nil {
		l.line("expires", o.Expires.Format(time.RFC3339))
	}
}

func component(l *lines, c *inspect.Component) {
	l.head("component", c.Name)
	for _, f := range c.Flags {
		for _, v := range f.Values {
			fmt.Fprintf(l.to, "  --%s=%s\n", Plain(f.Name), Plain(v))
		}
	}
}
