package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

// tokenConfig is bootstrapTokens of kubeadm's InitConfiguration
// (cmd/kubeadm/app/apis/bootstraptoken/v1/types.go).
type tokenConfig struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	BootstrapTokens []struct {
		Token       string   `json:"token"`
		Description string   `json:"description"`
		TTL         string   `json:"ttl"`
		Expires     string   `json:"expires"`
		Usages      []string `json:"usages"`
		Groups      []string `json:"groups"`
	} `json:"bootstrapTokens"`
}

// readTokenConfig reads the tokens of kubeadm's configuration; one with
// kubeadm's defaults where it names none.
func readTokenConfig(s streams, name string, now time.Time) ([]*bootstrap.Spec, error) {
	data, err := readInput(s, name)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	config, err := findInitConfiguration(data)
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", name, err)
	}
	var all []*bootstrap.Spec
	for i := range max(1, len(config.BootstrapTokens)) {
		spec, err := config.spec(i, now)
		if err != nil {
			return nil, fmt.Errorf("--config %s: bootstrapTokens[%d]: %w", name, i, err)
		}
		all = append(all, spec)
	}
	return all, nil
}

// findInitConfiguration does not repeat what it cannot read: it holds tokens.
func findInitConfiguration(data []byte) (*tokenConfig, error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for i := 1; ; i++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it holds no InitConfiguration of kubeadm.k8s.io")
		}
		var kind struct{ APIVersion, Kind string }
		if err != nil || yaml.Unmarshal(document, &kind) != nil {
			return nil, fmt.Errorf("document %d is no YAML", i)
		}
		if kind.Kind != "InitConfiguration" || !strings.HasPrefix(kind.APIVersion, "kubeadm.k8s.io/") {
			continue
		}
		var config tokenConfig
		if yaml.Unmarshal(document, &config) != nil {
			return nil, fmt.Errorf("document %d: bootstrapTokens are not as kubeadm has them", i)
		}
		return &config, nil
	}
}

// spec is one token, with kubeadm's defaults.
func (c *tokenConfig) spec(i int, now time.Time) (*bootstrap.Spec, error) {
	spec := &bootstrap.Spec{Usages: []string{bootstrap.Signing, bootstrap.Authentication}, Groups: []string{bootstrap.NodeGroup}, Expires: now.Add(bootstrap.DefaultLife)}
	if len(c.BootstrapTokens) == 0 {
		return spec, nil
	}
	b := &c.BootstrapTokens[i]
	spec.Description = b.Description
	if len(b.Usages) > 0 {
		spec.Usages = b.Usages
	}
	if len(b.Groups) > 0 || !spec.May(bootstrap.Authentication) {
		spec.Groups = b.Groups
	}
	var err error
	if b.Token != "" {
		if spec.Token, err = bootstrap.ParseToken(b.Token); err != nil {
			return nil, fmt.Errorf("token %w", err)
		}
	}
	switch {
	case b.TTL != "" && b.Expires != "":
		return nil, errors.New("ttl and expires contradict each other")
	case b.TTL != "":
		var life time.Duration
		if life, err = parseTTL("ttl", b.TTL); err == nil {
			spec.Expires = expiry(now, life)
		}
	case b.Expires != "":
		if spec.Expires, err = time.Parse(time.RFC3339, b.Expires); err != nil || !spec.Expires.After(now) {
			err = errors.New("expires is not a time to come (RFC 3339)")
		}
	}
	if err != nil {
		return nil, err
	}
	return spec, spec.Check()
}

// expiry is the end of a life, none of one for ever.
func expiry(now time.Time, life time.Duration) time.Time {
	if life == 0 {
		return time.Time{}
	}
	return now.Add(life)
}
