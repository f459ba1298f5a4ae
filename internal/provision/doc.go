// Package provision creates what a wanted cluster lacks: it compares the
// entries of a [catalog.Cluster] with what stands on the disk, decides for each
// whether to keep, make, request or take in, or refuses with the cause, and
// writes everything in one transaction.
//
// [Plan] only reads. [Planned.Apply] makes keys on all cores, signs, and writes
// all files or none. Nothing that is there is ever overwritten.
package provision
