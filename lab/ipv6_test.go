//go:build linux

package lab_test

import (
	"path/filepath"
	"testing"
)

func TestControlPlaneRunsOnIPv6(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "cp1")
	initNode(t, configOf(t, "IPv6 alone"), root)
	node := addNode(t, newNetwork(t), "cp1", root, "fd99::11/64")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver"))
	ready(t, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
	plane := &controlPlane{dir: dir, shape: "separate"}
	plane.admin = plane.conf(t, "super-admin")
	testIdentities(t, plane)
	testUser(t, plane)
	testFrontProxy(t, plane)
	testLeases(t, plane)
	testServiceAccount(t, plane)
}
