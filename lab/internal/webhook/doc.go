// Package webhook is the lab's admission webhook (link 14): a small server that
// judges ConfigMaps, serves a certificate from files that it reads again when
// they change, and, when told so, lets nobody in but who shows a certificate of
// its clients' authority.
package webhook
