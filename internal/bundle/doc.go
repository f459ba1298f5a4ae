// Package bundle is about bundles as texts: the anchors that one holds, and how it
// is changed without touching what else stands in it. It is pure.
package bundle
