package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/provision"
)

// initialization is the machine form of what init did or would do.
type initialization struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Nodes      []initializedNode `json:"nodes"`
}

type initializedNode struct {
	Name    string             `json:"name"`
	Root    string             `json:"root"`
	Entries []initializedEntry `json:"entries"`
}

type initializedEntry struct {
	Name   string           `json:"name"`
	Path   string           `json:"path"`
	Action provision.Action `json:"action"`
}

func printPlan(w io.Writer, format string, nodes []provision.Node) error {
	if format == "json" {
		return printPlanJSON(w, nodes)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tCREDENTIAL\tPATH\tACTION")
	for _, n := range nodes {
		for _, e := range n.Entries {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", orDash(n.Name), e.Name, e.Path, e.Action)
		}
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printPlanJSON(w io.Writer, nodes []provision.Node) error {
	out := initialization{APIVersion: config.APIVersion, Kind: "Initialization", Nodes: []initializedNode{}}
	for _, n := range nodes {
		node := initializedNode{Name: n.Name, Root: n.Root, Entries: []initializedEntry{}}
		for _, e := range n.Entries {
			node.Entries = append(node.Entries, initializedEntry(e))
		}
		out.Nodes = append(out.Nodes, node)
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// talkAfterInit says what to do next.
func talkAfterInit(w io.Writer, f *initFlags, o provision.Options, plan *provision.Planned, pending int) {
	var requests, users, taken int
	for _, n := range plan.Nodes {
		for _, e := range n.Entries {
			switch e.Action {
			case provision.Requested:
				requests++
			case provision.TakenIn:
				taken++
			}
			if strings.Contains(e.Path, "/users/") {
				users++
			}
		}
	}
	switch {
	case f.dryRun:
		fmt.Fprintf(w, "nothing was written: %d files would be\n", pending)
		return
	case pending == 0:
		fmt.Fprintln(w, "everything was there already; nothing was written")
	default:
		fmt.Fprintf(w, "wrote %d files below %s\n", pending, o.Dir)
	}
	if requests > 0 {
		authorities := "the authorities' ca.crt, front-proxy-ca.crt and etcd/ca.crt in their places"
		if o.Service != nil {
			authorities = "the authority's ca.crt in its place"
		}
		fmt.Fprintf(w, "next: have the %d FILE.csr signed, put each certificate beside it as FILE.crt, with %s, and run the same command without --csr-only\n", requests, authorities)
		return
	}
	if taken > 0 && pending > 0 {
		fmt.Fprintln(w, "next: the keys of completed kubeconfigs stand in them now; remove their FILE.conf.key, .csr and .crt")
	}
	if o.Service != nil {
		fmt.Fprintf(w, "next: give client/client.{crt,key} to the client, server/server.{crt,key} to the server, and ca.crt to both; keep ca.key\n")
		return
	}
	if o.PerNode {
		fmt.Fprintf(w, "next: prove the links with: kubepki verify %s\n", o.Dir)
		fmt.Fprintf(w, "      copy what is in each node's folder to its /, for example: rsync -rp %s root@NODE:/\n", filepath.Join(o.Dir, "NODE", "*"))
		return
	}
	fmt.Fprintf(w, "next: prove the links with: kubepki verify --root %s\n", o.Dir)
	if filepath.Clean(o.Dir) != "/" {
		fmt.Fprintf(w, "      copy what is in it to / of its node, for example: rsync -rp %s root@NODE:/\n", strings.Join(topFolders(o.Dir, plan), " "))
	}
}

// topFolders lists the folders directly below the root of a lone node. They are
// copied one by one: rsync would give the mode of the root itself to the
// node's /.
func topFolders(dir string, plan *provision.Planned) []string {
	var folders []string
	for _, n := range plan.Nodes {
		for _, e := range n.Entries {
			top, _, _ := strings.Cut(strings.TrimPrefix(e.Path, "/"), "/")
			folders = append(folders, filepath.Join(dir, top))
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// keyProgress shows how many keys have been made, on a terminal only. Making
// RSA keys is the one step that takes time.
type keyProgress struct {
	w     io.Writer
	mu    sync.Mutex
	made  int
	total int
}

func newKeyProgress(w io.Writer, total int) *keyProgress {
	if !isTerminal(w) || total == 0 {
		w = nil
	}
	return &keyProgress{w: w, total: total}
}

func (p *keyProgress) step() {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	const width = 30
	full := width * p.made / p.total
	fmt.Fprintf(p.w, "\rmaking keys [%s%s] %d/%d", strings.Repeat("#", full), strings.Repeat(" ", width-full), p.made, p.total)
}

// done clears the line, so that what follows starts on an empty one.
func (p *keyProgress) done() {
	if p.w != nil && p.made > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
