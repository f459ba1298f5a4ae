// Package podclient is a program for a pod of the lab (link 17): it uses the API
// as pods do, steadily, with what the kubelet mounted and nothing else, and
// tells of each request that failed.
package podclient
