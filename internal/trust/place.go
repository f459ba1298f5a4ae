package trust

import (
	"cmp"
	"strings"
)

// Place says where a fact stands, so that a person can go there and mend it.
// It is comparable and may be a map key.
type Place struct {
	Node  string // name of the node, empty when only one is looked at
	Path  string // absolute path as on the node, without any --root prefix
	Field string // flag, kubeconfig field or PEM block; empty for the whole file
}

// String returns "node:path#field" without the parts that are empty.
func (p Place) String() string {
	var b strings.Builder
	if p.Node != "" {
		b.WriteString(p.Node)
		b.WriteByte(':')
	}
	b.WriteString(p.Path)
	if p.Field != "" {
		b.WriteByte('#')
		b.WriteString(p.Field)
	}
	return b.String()
}

// IsZero tells whether the place is nowhere.
func (p Place) IsZero() bool { return p == Place{} }

// File returns the place of the file that p stands in.
func (p Place) File() Place { return Place{Node: p.Node, Path: p.Path} }

// In returns the place of a field within the file of p.
func (p Place) In(field string) Place { return Place{Node: p.Node, Path: p.Path, Field: field} }

// Compare orders places by node, path and field.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Node, q.Node), cmp.Compare(p.Path, q.Path), cmp.Compare(p.Field, q.Field))
}
