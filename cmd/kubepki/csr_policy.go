package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
)

// policyFlags are a policy and the settings that complete it.
type policyFlags struct {
	file      string
	groups    []string
	services  []string
	domain    string
	endpoints []string
	given     func(flag string) bool
}

var policyFlagNames = []string{"policy", "bootstrap-groups", "service-cidr", "cluster-domain", "api-endpoint"}

func (f *policyFlags) add(flags *pflag.FlagSet) {
	f.given = flags.Changed
	flags.StringVar(&f.file, "policy", "", "policy FILE (default: the built-in policy, docs/csr-policy.md)")
	flags.StringSliceVar(&f.groups, "bootstrap-groups", nil, "groups of those who ask for the first certificates of nodes (default system:bootstrappers)")
	flags.StringSliceVar(&f.services, "service-cidr", nil, "service address range that no node may claim, beside those that the cluster says; repeatable (default "+catalog.DefaultServiceSubnet+")")
	flags.StringVar(&f.domain, "cluster-domain", "", "DNS domain of the cluster (default: what the cluster says, else "+catalog.DefaultDNSDomain+")")
	flags.StringSliceVar(&f.endpoints, "api-endpoint", nil, "name or address of the API server that no worker may claim, beside those that the cluster says; repeatable")
}

// read returns the policy with the settings of the flags in it.
func (f *policyFlags) read(s streams) (csr.Policy, error) {
	p := csr.DefaultPolicy()
	if f.given("policy") {
		var err error
		if p, err = readPolicyFile(s, f.file); err != nil {
			return p, fmt.Errorf("--policy: %w", err)
		}
	}
	return f.complete(p)
}

// complete puts the settings of the flags into a policy.
func (f *policyFlags) complete(p csr.Policy) (csr.Policy, error) {
	for _, text := range f.services {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return p, usagef("--service-cidr %q is not a range like %s", text, catalog.DefaultServiceSubnet)
		}
		p.Cluster.ServiceRanges = append(p.Cluster.ServiceRanges, r.Masked())
	}
	if f.given("cluster-domain") {
		if f.domain == "" {
			return p, usagef("--cluster-domain names nothing")
		}
		p.Cluster.Domain = f.domain
	}
	p.Cluster.Endpoints = append(p.Cluster.Endpoints, f.endpoints...)
	if err := p.Cluster.Validate(); err != nil {
		return p, usageError{fmt.Errorf("--service-cidr, --cluster-domain, --api-endpoint: %w", err)}
	}
	if f.given("bootstrap-groups") {
		if len(f.groups) == 0 || slices.Contains(f.groups, "") {
			return p, usagef("--bootstrap-groups names no group")
		}
		p.BootstrapGroups = f.groups
	}
	return p, nil
}

// readPolicyFile reads a policy, and the file beside it that it may name.
func readPolicyFile(s streams, name string) (csr.Policy, error) {
	data, err := readInput(s, name)
	if err != nil {
		return csr.Policy{}, err
	}
	beside := func(other string) ([]byte, error) {
		if !filepath.IsAbs(other) {
			other = filepath.Join(filepath.Dir(name), other)
		}
		return readInput(s, other)
	}
	p, err := policy.ParseWith(data, beside)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}
