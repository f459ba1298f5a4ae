package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
)

// The forms of SARIF 2.1.0 that are used here
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool                `json:"tool"`
		Invocations []sarifInvocation        `json:"invocations"`
		Automation  *sarifAutomation         `json:"automationDetails,omitempty"`
		Bases       map[string]sarifArtifact `json:"originalUriBaseIds,omitempty"`
		Results     []sarifResult            `json:"results"`
		Properties  sarifRunProperties       `json:"properties"`
		Columns     string                   `json:"columnKind"`
	}
	sarifRunProperties struct {
		At string `json:"at"` // as of when was judged
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID            string      `json:"id"`
		HelpURI       string      `json:"helpUri"`
		Configuration sarifConfig `json:"defaultConfiguration"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifInvocation struct {
		Successful bool `json:"executionSuccessful"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations,omitempty"`
		Related      []sarifLocation   `json:"relatedLocations,omitempty"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   sarifProperties   `json:"properties"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifLocation struct {
		ID       int            `json:"id,omitempty"`
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
		Message  *sarifText     `json:"message,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
	}
	sarifArtifact struct {
		URI         string     `json:"uri,omitempty"`
		Base        string     `json:"uriBaseId,omitempty"`
		Description *sarifText `json:"description,omitempty"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind,omitempty"`
	}
	sarifProperties struct {
		Links        []int               `json:"links"`
		Node         string              `json:"node,omitempty"`
		Field        string              `json:"field,omitempty"`
		Fix          string              `json:"fix,omitempty"`
		Consequences []check.Consequence `json:"consequences,omitempty"`
	}
)

const (
	sarifSchema    = "https://json.schemastore.org/sarif-2.1.0.json"
	informationURI = "https://github.com/kubepki/kubepki"
	// helpURI is where each kind of finding is explained, under its id.
	helpURI = informationURI + "/blob/main/docs/findings.md#"
)

// SARIF prints verifications in the format in which tools that analyse hand on
// what they found: one run for each cluster. Each run is kept until the end, for
// a document in JSON is one.
type SARIF struct {
	w       io.Writer
	version string
	runs    []sarifRun
}

// NewSARIF prints nothing yet. Version is that of kubepki.
func NewSARIF(w io.Writer, version string) *SARIF {
	return &SARIF{w: w, version: version, runs: []sarifRun{}}
}

// Add adds a cluster.
func (s *SARIF) Add(v *Verification) {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "kubepki", Version: s.version, InformationURI: informationURI, Rules: sarifRules(v.Findings)}},
		Invocations: []sarifInvocation{{Successful: true}},
		Results:     []sarifResult{},
		Columns:     "unicodeCodePoints",
		Properties:  sarifRunProperties{v.At.Format(time.RFC3339)},
		Bases:       map[string]sarifArtifact{},
	}
	if v.Name != "" {
		run.Automation = &sarifAutomation{ID: v.Name + "/"}
	}
	for _, n := range v.Nodes {
		run.Bases[baseOf(n.Name)] = sarifArtifact{Description: &sarifText{"the root of the node " + cmp.Or(n.Name, "that was looked at")}}
	}
	for i := range v.Findings {
		f := &v.Findings[i]
		index := slices.IndexFunc(run.Tool.Driver.Rules, func(r sarifRule) bool { return r.ID == f.ID })
		run.Results = append(run.Results, sarifResultOf(f, index))
		for _, p := range f.Places() {
			// Folders beside the nodes have files too.
			if _, ok := run.Bases[baseOf(p.Node)]; !ok {
				run.Bases[baseOf(p.Node)] = sarifArtifact{Description: &sarifText{"the folder " + p.Node}}
			}
		}
	}
	s.runs = append(s.runs, run)
}

// Close prints the document.
func (s *SARIF) Close() error {
	data, err := json.MarshalIndent(sarifLog{sarifSchema, "2.1.0", s.runs}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = s.w.Write(append(visible(data), '\n'))
	return err
}

// sarifRules are all rules there are, and whatever else was found.
func sarifRules(found []check.Finding) []sarifRule {
	var rules []sarifRule
	add := func(id string, s check.Severity) {
		if !slices.ContainsFunc(rules, func(r sarifRule) bool { return r.ID == id }) {
			rules = append(rules, sarifRule{ID: id, HelpURI: helpURI + url.PathEscape(id), Configuration: sarifConfig{sarifLevel(s)}})
		}
	}
	for _, r := range check.Rules() {
		add(r.ID, r.Severity)
	}
	for _, f := range found {
		add(f.ID, f.Severity)
	}
	return rules
}

func sarifLevel(s check.Severity) string {
	if s == check.Info {
		return "note"
	}
	return string(s) // error and warning are SARIF's own words
}

func sarifResultOf(f *check.Finding, rule int) sarifResult {
	text := f.Cause
	if f.Fix != "" {
		text += "\n\nFix: " + f.Fix
	}
	r := sarifResult{
		RuleID: f.ID, RuleIndex: rule, Level: sarifLevel(f.Severity), Message: sarifText{text},
		Fingerprints: map[string]string{"kubepki/v1": fingerprint(f)},
		Properties:   sarifProperties{Links: append([]int{}, f.Links...), Node: f.Node, Field: f.Field, Fix: f.Fix, Consequences: f.Consequences},
	}
	for i, p := range f.Places() {
		l := sarifLocation{}
		if p.Path != "" {
			l.Physical = &sarifPhysical{sarifArtifact{URI: relativeURI(p.Path), Base: baseOf(p.Node)}}
		}
		if name := strings.Trim(p.Node+"/"+p.Field, "/"); name != "" && (p.Field != "" || p.Path == "") {
			l.Logical = []sarifLogical{{Name: name, Kind: "member"}}
		}
		if i == 0 {
			r.Locations = []sarifLocation{l}
		} else {
			l.ID = i
			r.Related = append(r.Related, l)
		}
	}
	return r
}

// fingerprint is the same for the same fault at the same place, whatever the
// time and the wording are.
func fingerprint(f *check.Finding) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{f.ID, f.Node, f.Path, f.Field}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// baseOf names the root of a node, against which paths are.
func baseOf(node string) string {
	if node == "" {
		return "ROOT"
	}
	return "ROOT-" + node
}

// relativeURI is a path on a node as a reference against the node's root.
func relativeURI(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.ReplaceAll(strings.Join(parts, "/"), ":", "%3A")
}
