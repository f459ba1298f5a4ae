// Package renew plans certificates that are made anew in place: what a leaf, a
// kubeconfig's credential or an authority's certificate shall hold, by which
// authority, and why. It reads a graph and the findings on it, and touches no
// disk; [Item.Make] makes the key and signs.
//
// What is wanted is the role's subject and usages as the catalog has them, all
// names that the links need, and everything of the old certificate that parses
// and is not at fault.
package renew
