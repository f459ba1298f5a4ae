// Package kubewatch follows the certificates of a cluster's objects: of Secrets,
// ConfigMaps and caBundles. What it keeps of them is [brief.Certificate], some hundred
// bytes each.
//
// Whoever may list Secrets is sent private keys too, as the API has no request for a
// part of a Secret. They are never decoded or copied here, and the memory that they
// come through is overwritten: an answer is read into a buffer that is cleared as soon
// as the certificates were taken from it, and connections clear what they read into
// before they wait for more ([dialer]). For that, answers are in the API's protobuf
// form, in which a value can be passed over where it stands, and uncompressed.
package kubewatch
