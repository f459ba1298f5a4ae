package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenfile"
)

// saTokenFlags say which tokens are good.
type saTokenFlags struct {
	root         string
	keyFlag      string // by which the keys are named
	keys         []string
	issuers      []string
	audiences    []string
	apiAudiences []string
	noLegacy     bool
}

func (f *saTokenFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.root, "root", "", "folder of a control plane that stands for its /: keys, issuers and API audiences are those of its kube-apiserver, where no flag names others")
	flags.StringArrayVar(&f.keys, "key", nil, "FILE with keys that verify tokens: PEM (public or private keys, certificates) or a JSON Web Key Set; repeatable")
	flags.StringArrayVar(&f.issuers, "issuer", nil, "issuer of the tokens (--service-account-issuer of kube-apiserver); the first is published, further ones are accepted too; repeatable")
	flags.StringArrayVar(&f.audiences, "audience", nil, "audience that a token must be for where who asks names none; repeatable (default: --api-audience)")
	flags.StringArrayVar(&f.apiAudiences, "api-audience", nil, "audience of the cluster's API server (--api-audiences); repeatable (default: every --issuer)")
	flags.BoolVar(&f.noLegacy, "no-legacy", false, "refuse the tokens of Secrets, which mostly never expire")
}

func (f *saTokenFlags) check(s streams) error {
	f.keyFlag = "key"
	if f.root != "" {
		if err := f.complete(s); err != nil {
			return err
		}
	}
	switch {
	case len(f.keys) == 0:
		return usagef("--key: name the file with the keys that verify the cluster's tokens: sa.pub on a control plane (--service-account-key-file); or that control plane's / with --root")
	case len(f.issuers) == 0:
		return usagef("--issuer: name the issuer of the cluster's tokens (--service-account-issuer)")
	}
	for _, values := range [][]string{f.keys, f.issuers, f.audiences, f.apiAudiences} {
		if slices.Contains(values, "") {
			return usagef("a --key, --issuer, --audience or --api-audience is empty")
		}
	}
	if slices.ContainsFunc(f.keys, func(k string) bool { return strings.Contains(k, "://") }) {
		return usagef("--key names a URL: what is served comes from files, which are read again when they change")
	}
	return nil
}

// complete takes what no flag says from the kube-apiserver below --root. Its
// flags are read once, the files that they name again when they change.
func (f *saTokenFlags) complete(s streams) error {
	servers, _, err := readSAServers([]nodeRoot{{dir: f.root}})
	if err != nil {
		return err
	}
	if len(servers) > 1 {
		return usagef("--root %s holds several control planes: name the / of one of them", f.root)
	}
	a := servers[0]
	if len(f.keys) == 0 {
		if a.verifyError != nil {
			return a.verifyError
		}
		f.keyFlag = "root"
		for _, k := range a.verify {
			f.keys = appendNew(f.keys, []string{k.path})
		}
	}
	if len(f.issuers) == 0 {
		if f.issuers, err = a.knownIssuers(); err != nil {
			return err
		}
	}
	if len(f.apiAudiences) == 0 {
		f.apiAudiences = a.audiences
	}
	a.warnUnseen(s)
	return nil
}

// open reads the keys; told hears when their files change.
func (f *saTokenFlags) open(told func(error)) (*tokenfile.Source, error) {
	for _, k := range f.keys {
		if err := checkFile(f.keyFlag, k); err != nil {
			return nil, err
		}
	}
	source, err := tokenfile.Open(told, f.keys...)
	if err != nil {
		return nil, advise(err, "--key takes PEM (public or private keys, certificates) or a JSON Web Key Set: kubepki show FILE tells what a file holds")
	}
	return source, nil
}

// checkFile says by its flag why a file cannot be read, or not again.
func checkFile(flag, name string) error {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return advise(fmt.Errorf("--%s: %s is not a regular file, which could be read again when it changes", flag, name), "name a file: what a pipe gives, write to one first")
	}
	if err == nil {
		var file *os.File
		if file, err = os.Open(name); err == nil {
			return file.Close()
		}
	}
	err = fmt.Errorf("--%s: %w", flag, err)
	if errors.Is(err, fs.ErrPermission) {
		return advise(err, "run it with sudo")
	}
	return err
}

func (f *saTokenFlags) verifier(keys token.KeySource) (*token.Verifier, error) {
	return token.NewVerifier(token.Config{Keys: keys, Issuers: f.issuers, APIAudiences: f.apiAudiences, Audiences: f.audiences, Legacy: !f.noLegacy})
}
