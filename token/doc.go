// Package token issues and verifies the tokens of Kubernetes service accounts,
// without asking a cluster.
//
// A [Verifier] means what kube-apiserver means, and is stricter wherever the
// two differ: whatever it accepts kube-apiserver accepts as well, as the same
// user, if what the token is bound to still exists. docs/sa-verify.md lists each
// difference. A [Signer] makes the tokens that kube-apiserver makes.
//
// Promises:
//
//   - Tokens are signed with RS256, ES256, ES384 or ES512. Nothing in a token's
//     header ever supplies a key.
//   - A refusal is a [*RefusedError], whose reasons never hold the token. Any
//     other error means that the keys could not be had: nothing was judged.
//   - Nothing here reads a disk or a network. Keys come from a [KeySource]: a
//     fixed [KeySet], files that are read again when they change (package
//     token/tokenfile), or an issuer's discovery (package token/tokenhttp).
//   - What this package cannot see, it does not claim: a token that is bound to
//     a pod is accepted until it expires, even when the pod is gone. To have
//     that looked at, ask the cluster (TokenReview).
package token
