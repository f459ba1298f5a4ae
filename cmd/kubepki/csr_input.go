package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

// readObjects reads a file with objects of Kubernetes, or standard input for
// "-". A pipe is waited for: that is what a shell gives for <(kubectl get ...).
func readObjects(s streams, name string) ([]byte, error) {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			var failed *fs.PathError
			if errors.As(err, &failed) {
				err = failed.Err
			}
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return nil, fmt.Errorf("%s: is a folder", name)
		}
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, kube.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// readRequests reads the requests of a file.
func readRequests(s streams, name string) ([]csr.Request, error) {
	data, err := readObjects(s, name)
	if err != nil {
		return nil, fmt.Errorf("-f: %w", err)
	}
	requests, err := kube.ParseRequests(data)
	if err == nil {
		return requests, nil
	}
	err = fmt.Errorf("-f %s: %w", name, err)
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return nil, advise(err, "a bare request says neither who asks nor of whom: kubepki show %s tells what is in it", name)
	}
	return nil, advise(err, "give a CertificateSigningRequest of certificates.k8s.io/v1: kubectl get csr NAME -o yaml")
}

// readNodes reads the nodes of a file.
func readNodes(s streams, name string) (*csr.Inventory, error) {
	data, err := readObjects(s, name)
	if err != nil {
		return nil, fmt.Errorf("--nodes: %w", err)
	}
	nodes, err := kube.ParseNodes(data)
	if err != nil {
		return nil, advise(fmt.Errorf("--nodes %s: %w", name, err), "make it with: kubectl get nodes -o yaml > nodes.yaml")
	}
	return csr.NewInventory(nodes...), nil
}
