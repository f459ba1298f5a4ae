// Package policy reads the policy of an administrator: a SigningPolicy in YAML,
// whose rules are expressions in CEL. docs/csr-policy.md describes both.
package policy
