package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Tree prints an inventory as authority → credential → who uses it.
func (v *Inventory) Tree(w io.Writer, p Palette) error {
	t := tree{v: v, palette: p}
	for i := range v.Authorities {
		if v.Authorities[i].Authority == "" {
			t.authority(&v.Authorities[i], "", "")
		}
	}
	t.signingKeys()
	t.others()
	if v.Name != "" {
		fmt.Fprintf(w, "%s\n\n", p.Bold(Plain(v.Name)))
	}
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, "no credentials")
		return err
	}
	return Table(w, []string{"AUTHORITY AND CREDENTIALS", "SUBJECT", "EXPIRES", "USED BY"}, t.rows)
}

type tree struct {
	v       *Inventory
	palette Palette
	rows    [][]string
}

func (t *tree) row(cells ...string) { t.rows = append(t.rows, cells) }

// authority prints an authority and, below it, what it signed. lead stands
// before its own line, below before the lines under it.
func (t *tree) authority(a *KnownAuthority, lead, below string) {
	t.row(lead+t.palette.Bold(Plain(a.Name)), Plain(a.Subject), t.expires(a.NotBefore, a.NotAfter), t.keyPlaces(a))
	var children []func(lead, below string)
	for i := range t.v.Authorities {
		if c := &t.v.Authorities[i]; c.Authority == a.Name && c.Name != a.Name {
			children = append(children, func(lead, below string) { t.authority(c, lead, below) })
		}
	}
	for i := range t.v.Credentials {
		if c := &t.v.Credentials[i]; c.Certificate != nil && c.Authority == a.Name {
			children = append(children, func(lead, _ string) { t.credential(c, lead) })
		}
	}
	branch(children, below)
}

func branch(children []func(lead, below string), below string) {
	for i, child := range children {
		if i == len(children)-1 {
			child(below+"└── ", below+"    ")
		} else {
			child(below+"├── ", below+"│   ")
		}
	}
}

func (t *tree) credential(c *KnownCredential, lead string) {
	t.row(lead+Plain(qualified(c.Node, c.Name)), Plain(c.Subject), t.expires(c.NotBefore, c.NotAfter), Plain(useText(c)))
}

// keyPlaces says where the private key of an authority is.
func (t *tree) keyPlaces(a *KnownAuthority) string {
	var nodes []string
	here, problem := false, ""
	for _, p := range a.Places {
		if p.Key == "" {
			problem = cmp.Or(problem, p.KeyProblem)
			continue
		}
		here = true
		if p.Node == catalog.AuthoritiesDir {
			return "key in " + p.Node + "/"
		}
		if p.Node != "" && !slices.Contains(nodes, p.Node) {
			nodes = append(nodes, p.Node)
		}
	}
	switch {
	case len(nodes) > 0:
		return "key on " + strings.Join(nodes, ", ")
	case here:
		return "key here"
	case problem != "":
		return "key: " + problem
	}
	return "key elsewhere"
}

func (t *tree) expires(from, to time.Time) string {
	return fmt.Sprintf("%s (%s)", to.Format(time.DateOnly), t.palette.left(from, to, t.v.At))
}

// signingKeys prints each key for service-account tokens once.
func (t *tree) signingKeys() {
	type joined struct {
		SigningKey
		nodes []string
	}
	var keys []joined
	for _, k := range t.v.SigningKeys {
		i := slices.IndexFunc(keys, func(j joined) bool { return k.Problem == "" && j.PublicKeySHA256 == k.PublicKeySHA256 })
		if i < 0 {
			keys, i = append(keys, joined{SigningKey: k}), len(keys)
		} else {
			keys[i].UsedBy = append(slices.Clone(keys[i].UsedBy), k.UsedBy...)
		}
		if k.Node != "" {
			keys[i].nodes = append(keys[i].nodes, k.Node)
		}
	}
	for _, k := range keys {
		users := []string{}
		for _, u := range k.UsedBy {
			if name := withoutNode(u); !slices.Contains(users, name) {
				users = append(users, name)
			}
		}
		where := ""
		if len(k.nodes) > 0 {
			where = "; key on " + strings.Join(k.nodes, ", ")
		}
		state := k.KeyAlgorithm + " key, signs service-account tokens"
		if k.Problem != "" {
			where = ""
			state = k.Path + " " + k.Problem
		}
		t.row(t.palette.Bold("sa"), Plain(state), "–", strings.Join(users, ", ")+where)
	}
}

// others prints what no authority of the inventory signed, and what could not
// be read.
func (t *tree) others() {
	var children []func(lead, below string)
	for i := range t.v.Credentials {
		c := &t.v.Credentials[i]
		if c.Certificate == nil || c.Authority != "" {
			continue
		}
		children = append(children, func(lead, _ string) {
			state := "unknown authority " + c.Issuer
			if c.SelfSigned {
				state = "self-signed"
			}
			t.row(lead+Plain(qualified(c.Node, c.Name)), Plain(c.Subject)+" ("+Plain(state)+")", t.expires(c.NotBefore, c.NotAfter), Plain(useText(c)))
		})
	}
	if len(children) > 0 {
		t.row(t.palette.Bold("other"), "", "", "")
		branch(children, "")
	}
	children = nil
	for i := range t.v.Credentials {
		if c := &t.v.Credentials[i]; c.Certificate == nil {
			children = append(children, func(lead, _ string) {
				t.row(lead+Plain(qualified(c.Node, c.Name)), Plain(c.Path+" "+c.Problem), "–", Plain(useText(c)))
			})
		}
	}
	if len(children) > 0 {
		t.row(t.palette.Bold("not seen"), "", "", "")
		branch(children, "")
	}
}

// useText says who uses a credential: "kube-apiserver serves, → etcd".
func useText(c *KnownCredential) string {
	var texts []string
	add := func(text string) {
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	own := func(component string) string { return strings.TrimPrefix(component, c.Node+"/") }
	for _, u := range c.UsedBy {
		if u.Side == "server" {
			add(own(u.Component) + " serves")
		} else {
			add(own(u.Component) + " → " + withoutNode(u.Peer))
		}
	}
	return strings.Join(texts, ", ")
}

func withoutNode(component string) string {
	if _, name, ok := strings.Cut(component, "/"); ok {
		return name
	}
	return component
}

func qualified(node, name string) string {
	if node == "" {
		return name
	}
	return node + "/" + name
}

// Names prints node/name of each authority and credential, one per line.
func (v *Inventory) Names(w io.Writer) error {
	var b strings.Builder
	for _, a := range v.Authorities {
		fmt.Fprintln(&b, Plain(a.Name))
	}
	for _, c := range v.Credentials {
		fmt.Fprintln(&b, Plain(qualified(c.Node, c.Name)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Rows prints one row per certificate; wide adds paths, issuers, usages and names.
func (v *Inventory) Rows(w io.Writer, wide bool, p Palette) error {
	if v.Name != "" {
		fmt.Fprintf(w, "%s\n\n", p.Bold(Plain(v.Name)))
	}
	head := []string{"NODE", "NAME", "SUBJECT", "AUTHORITY", "EXPIRES", "LEFT", "KEY"}
	if wide {
		head = append(head, "PATH", "ISSUER", "SERIAL", "USAGES", "NAMES")
	}
	var rows [][]string
	for i := range v.Authorities {
		for _, at := range v.Authorities[i].Places {
			a := &v.Authorities[i]
			rows = append(rows, v.cells(&KnownCredential{Name: a.Name, Node: at.Node, Path: at.Path, Certificate: a.Certificate, Authority: a.Authority}, wide, p))
		}
	}
	for i := range v.Credentials {
		rows = append(rows, v.cells(&v.Credentials[i], wide, p))
	}
	if len(v.Nodes) == 1 && v.Nodes[0].Name == "" {
		head = head[1:]
		for i := range rows {
			rows[i] = rows[i][1:]
		}
	}
	return Table(w, head, rows)
}

func (v *Inventory) cells(c *KnownCredential, wide bool, p Palette) []string {
	if c.Certificate == nil {
		return append([]string{c.Node, Plain(c.Name), p.Red(Plain(c.Problem)), "–", "–", "–", "–"}, pathCell(c, wide)...)
	}
	authority := c.Authority
	switch {
	case c.SelfSigned:
		authority = "self-signed"
	case authority == "":
		authority = "unknown"
	}
	cells := []string{
		c.Node, Plain(c.Name), Plain(c.Subject), Plain(authority), c.NotAfter.Format(time.RFC3339), p.left(c.NotBefore, c.NotAfter, v.At), c.KeyAlgorithm,
	}
	cells = append(cells, pathCell(c, wide)...)
	if wide {
		cells = append(cells, Plain(c.Issuer), c.Serial, strings.Join(c.Usages, ","), Plain(strings.Join(c.All(), ",")))
	}
	return cells
}

func pathCell(c *KnownCredential, wide bool) []string {
	if !wide {
		return nil
	}
	if c.Field != "" {
		return []string{Plain(c.Path + "#" + c.Field)}
	}
	return []string{Plain(c.Path)}
}
