// Package cainjector says which certificates belong into the caBundle fields of webhooks,
// APIServices and the conversion webhooks of CustomResourceDefinitions, by the annotations
// of cert-manager's cainjector. It is pure: objects go in as they are in JSON, what is to
// be written comes out.
//
// Its values are fixed points of cert-manager's own cainjector, and the other way round: of
// two that run side by side, neither changes what the other has written.
package cainjector
