// Package saserver is the server of `kubepki sa serve`: the documents by which
// others discover the keys of an issuer ([Publisher]), and a webhook that says
// whether a token is good ([Reviewer]), over TLS ([Serve]).
//
// Only public keys come in: a [token.KeySet] holds no others.
package saserver
