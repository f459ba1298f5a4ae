// Package objects holds what the lab puts into a cluster's API: the extension
// API server, the webhook server, kube-proxy in its three ways to say who it is,
// the pod that uses the API, and the rights that all of them need.
//
// The objects are YAML files, one for each thing, with the few values filled in
// in which clusters differ. [Apply] applies them from the server's side, so that
// applying them again changes nothing. [Provision] makes the credentials that
// they need, each server below an authority of its own, in folders of kubepki's
// service layout. [APIServerFlags] and [WriteAdmission] are what kube-apiserver
// needs to call them.
package objects
