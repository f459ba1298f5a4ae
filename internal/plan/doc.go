// Package plan says in which order the authorities of a cluster are replaced,
// and proves before anything is touched that no connection breaks on the way.
//
// [Rotate] makes a [Plan] from a trust graph and the certificates of the new
// authorities: steps that are data, each with what is written where, which
// processes take it up by themselves or must be restarted, and the gate to pass
// before the next. The order is accept, switch, issue, drop; two steps around
// it give the signer a file of its own where it shares one with a bundle. What
// was done before is not remembered but read from the graph, so that a rotation
// that was interrupted anywhere goes on by planning again.
//
// [Prove] walks the steps and keeps for each process everything that it may
// hold by then: what stands on disk is not what a process loaded. How a process
// takes it up was measured for each version ([Measured]). A half of a link
// concerns two of them, so that it is enough to judge each pair, not each
// mixture of the whole cluster.
//
// The package is pure and makes no keys: what does not exist yet is described
// by who shall sign it ([Content].IssuedBy). docs/design/0004-rotation.md has
// the reasons.
package plan
