// Package agent is the loop of kubepki agent: it watches the files of nodes, judges
// every link of theirs each minute, and makes anew what is due. What it knows is on a
// [Board], which others show.
//
// The loop itself decides when; what it does to disks, processes and clusters stands
// behind the functions and interfaces of [Options].
package agent
