package main

import (
	"testing"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

func TestIssuersThatAreServed(t *testing.T) {
	for name, row := range map[string]struct {
		patterns []string
		ref      cmmeta.IssuerReference
		want     bool
	}{
		"an Issuer by namespace and name":       {[]string{"shop/ca"}, cmmeta.IssuerReference{Name: "ca"}, true},
		"one of another namespace":              {[]string{"bank/ca"}, cmmeta.IssuerReference{Name: "ca"}, false},
		"all of a namespace":                    {[]string{"bank/*", "shop/*"}, cmmeta.IssuerReference{Name: "ca"}, true},
		"a ClusterIssuer":                       {[]string{"ca"}, cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer"}, true},
		"a ClusterIssuer of an Issuer's name":   {[]string{"shop/ca"}, cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer"}, false},
		"an Issuer of a ClusterIssuer's name":   {[]string{"ca", "*"}, cmmeta.IssuerReference{Name: "ca"}, false},
		"one of another group":                  {[]string{"external"}, cmmeta.IssuerReference{Name: "ca", Kind: "X", Group: "example.org"}, true},
		"one of another group, which is not in": {[]string{"*", "*/*"}, cmmeta.IssuerReference{Name: "ca", Kind: "X", Group: "example.org"}, false},
		"a ClusterIssuer that is called so":     {[]string{"external"}, cmmeta.IssuerReference{Name: "external", Kind: "ClusterIssuer"}, false},
	} {
		f := workloadFlags{issuers: row.patterns}
		if got := f.ours(row.ref, "shop"); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}

func TestNamespacesThatAreSkipped(t *testing.T) {
	for name, row := range map[string]struct {
		flags     workloadFlags
		ref       cmmeta.IssuerReference
		namespace string
		want      bool
	}{
		"an Issuer of a namespace that is skipped":      {workloadFlags{skipNamespaces: []string{"bank", "shop"}}, cmmeta.IssuerReference{Name: "ca"}, "shop", false},
		"one of another namespace":                      {workloadFlags{skipNamespaces: []string{"bank", "shop"}}, cmmeta.IssuerReference{Name: "ca"}, "shop-2", true},
		"one by a pattern":                              {workloadFlags{skipNamespaces: []string{"shop*"}}, cmmeta.IssuerReference{Name: "ca"}, "shop-2", false},
		"a ClusterIssuer, named from one that is":       {workloadFlags{skipNamespaces: []string{"shop"}}, cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer"}, "shop", false},
		"an external issuer, named from one that is":    {workloadFlags{skipNamespaces: []string{"shop"}}, cmmeta.IssuerReference{Name: "ca", Kind: "X", Group: "example.org"}, "shop", false},
		"a ClusterIssuer itself, where all are skipped": {workloadFlags{skipNamespaces: []string{"*"}}, cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer"}, "", true},
		"one in --issuers, of a namespace that is":      {workloadFlags{issuers: []string{"shop/ca"}, skipNamespaces: []string{"shop"}}, cmmeta.IssuerReference{Name: "ca"}, "shop", false},
		"one not in --issuers, of a namespace that is not": {
			workloadFlags{issuers: []string{"shop/ca"}, skipNamespaces: []string{"bank"}}, cmmeta.IssuerReference{Name: "other"}, "shop", false,
		},
	} {
		if got := row.flags.ours(row.ref, row.namespace); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}
