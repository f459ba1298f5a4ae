// Package tokentest is for tests alone: tokens of service accounts with knobs,
// good ones and every kind of bad one that is known, with the verdict that
// package token and kube-apiserver have on each. The tests of package token and
// those in lab/, which ask Kubernetes' own code, read the same table.
package tokentest
