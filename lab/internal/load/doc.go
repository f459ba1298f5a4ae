// Package load makes steady traffic over every link of a running lab that a user
// would notice, and reports each request that failed.
//
// A [Stream] is requests of one kind, one after another, by a client of their
// own. [Run] finds out which streams a lab has, makes what they need in its API,
// keeps them going side by side, and takes away again what it made.
//
// It is to be honest both ways. It hides nothing: no request is tried a second
// time (client-go's and etcd's own retries are off), a request that does not end
// fails at its deadline, and what the run's end finds under way is waited for. It
// invents nothing: a client does what a user's client does (it reads a changed
// kubeconfig, it opens a watch again that the server has ended), and a link that
// the lab does not have is named, not called.
package load
