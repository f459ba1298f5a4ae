package explain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Half names of a link.
const (
	HalfServer = "server" // the callee's credential in the eyes of the caller
	HalfClient = "client" // the caller's in the eyes of the callee
)

// Explanation is what one error line means. Its JSON form is public and versioned.
type Explanation struct {
	// Line is the line without secrets, shortened; Count is how many of the lines
	// that were given say the same.
	Line  string `json:"line"`
	Count int    `json:"count"`
	// Message is the text of the catalogue that the line holds, with * for any
	// text, and Class the kind of fault.
	Message string `json:"message"`
	Class   string `json:"class"`
	// Component is whose log it is and Direction what it did, as far as the line
	// or the user tells; Node is the host that wrote it.
	Component string    `json:"component,omitempty"`
	Direction Direction `json:"direction,omitempty"`
	Node      string    `json:"node,omitempty"`
	Meaning   string    `json:"meaning"`
	// Links are the numbers of the links that it can be about, and Half which
	// half of them; empty: either, or none.
	Links []int  `json:"links"`
	Half  string `json:"half,omitempty"`
	// Judge refused and Shower was refused: caller or callee; empty when the line
	// does not tell, or when nobody judged.
	Judge  string `json:"judge,omitempty"`
	Shower string `json:"shower,omitempty"`
	Facts  Facts  `json:"facts"`
	// Look are the files to look at, the likeliest first, as kubeadm lays them out.
	Look []Look `json:"look"`
	// Findings are the ids of findings that explain such an error.
	Findings []string `json:"findings"`
	Next     []string `json:"next"` // commands
	// Found is what the files of a cluster say; nil when none were given.
	Found *Found `json:"found,omitempty"`
}

// Look is a file to look at.
type Look struct {
	Links   []int  `json:"links"`
	Role    string `json:"role"`
	Path    string `json:"path,omitempty"`
	Setting string `json:"setting,omitempty"` // the flag or field that names it
}

// Line explains one line of the log of a component; empty: as the line tells.
// It returns nil where the line holds no message of the catalogue.
func Line(text, component string) *Explanation {
	l := parseLine(text)
	return l.explain(text, component)
}

func (l *line) explain(text, component string) *Explanation {
	m, ok := find(l.text)
	if !ok {
		return nil
	}
	f := readFacts(redact(l.text))
	if m.besideCredentials(l.text, &f) {
		return nil
	}
	c := readContext(l, &f, component)
	k := classes[m.class]
	e := &Explanation{Line: shorten(redact(strings.TrimSpace(text))), Count: 1, Message: m.text, Class: m.class, Component: c.component, Direction: c.direction,
		Node: redact(l.node), Facts: f, Findings: append([]string{}, k.findings...)}
	e.Half = halfOf(k.sense, c.direction)
	e.Links = f.narrow(kept(c.links, e.Half, m.class, k), k, c.component)
	switch e.Half {
	case HalfServer:
		e.Judge, e.Shower = "caller", "callee"
	case HalfClient:
		e.Judge, e.Shower = "callee", "caller"
	}
	e.Meaning = e.say(k)
	e.Look = e.look(k)
	e.Next = e.next(k)
	return e
}

// besideCredentials tells that a message which is not of credentials alone is here
// of something else: another file, a unix socket.
func (m *message) besideCredentials(text string, f *Facts) bool {
	switch m.class {
	case "file-missing", "file-unreadable":
		return !ofCredential(f.Path) || strings.Contains(text, "dial unix")
	case "unreachable", "timeout", "connection-closed":
		return strings.Contains(text, "dial unix")
	}
	return false
}

// maxShown is how many bytes of a line are shown.
const maxShown = 2000

func shorten(text string) string {
	if len(text) <= maxShown {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	return strings.ToValidUTF8(text[:maxShown], "") + "…"
}

// halfOf is the half of a link that a message is about.
func halfOf(s sense, d Direction) string {
	switch {
	case s == ofCallee, s == ofPeer && d == Dialling, s == ofWriter && d == Serving:
		return HalfServer
	case s == ofCaller, s == ofPeer && d == Serving, s == ofWriter && d == Dialling:
		return HalfClient
	}
	return ""
}

// kept leaves out the links that have no such half, and, for a token, those
// whose callers show none.
func kept(links []int, half, name string, k class) []int {
	if k.token && k.depth == why {
		wanted := []int{7, 12, 17, 20}
		if name == "bootstrap-token" {
			wanted = []int{16}
		}
		links = intersect(links, wanted)
		if len(links) == 0 {
			return wanted[:min(3, len(wanted))]
		}
		return unique(links)
	}
	var out []int
	for _, n := range links {
		if name == "registry" || name == "making" || name == "internal" {
			break
		}
		l := linkOf(n)
		switch {
		case name == "kubeconfig" && !slices.Contains([]int{5, 6, 7, 8, 9, 16}, n),
			name == "sa-key-file" && n != 12, name != "sa-key-file" && n == 12,
			k.api && l.callee == catalog.Etcd,
			// A caller with a token shows no certificate.
			half == HalfClient && l.token && !k.token && (k.sense == ofPeer || k.sense == ofWriter || slices.Contains([]string{"client-expired", "no-client-certificate", "refused-nothing", "identity"}, name)),
			half == HalfClient && l.client == (spot{}), half == HalfServer && l.serving == (spot{}),
			name == "peer-address" && n != 1, name == "proxy-name" && n != 13:
		default:
			out = append(out, n)
		}
	}
	return unique(out)
}

func unique(numbers []int) []int {
	numbers = slices.Clone(numbers)
	slices.Sort(numbers)
	return append([]int{}, slices.Compact(numbers)...)
}

// say puts the ends' names into the meaning of a class.
func (e *Explanation) say(k class) string {
	caller, callee := e.ends()
	judge, shower := "one end", "the other"
	switch e.Half {
	case HalfServer:
		judge, shower = caller, callee
	case HalfClient:
		judge, shower = callee, caller
	default:
		switch {
		case e.Component != "" && k.sense == ofPeer:
			judge, shower = e.Component, "the other end"
		case e.Component != "" && k.sense == ofWriter:
			judge, shower = "the other end", e.Component
		}
	}
	return strings.NewReplacer("{judge}", judge, "{shower}", shower, "{caller}", caller, "{callee}", callee).Replace(k.means)
}

// ends names the caller and the callee where all links agree.
func (e *Explanation) ends() (caller, callee string) {
	caller, callee = "the caller", "the server"
	var callers, callees []string
	for _, n := range e.Links {
		l := linkOf(n)
		callees = append(callees, l.callee)
		callers = append(callers, l.callers...)
	}
	if one, ok := only(callees); ok {
		callee = one
	}
	if one, ok := only(callers); ok {
		caller = one
	}
	switch {
	case e.Direction == Serving && e.Component != "":
		callee = e.Component
	case e.Direction == Dialling && e.Component != "":
		caller = e.Component
	}
	if caller == callee && caller == catalog.Etcd {
		caller, callee = "the etcd member that calls", "the etcd member that is called"
	}
	return caller, callee
}

func only(names []string) (string, bool) {
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 1 {
		return names[0], true
	}
	return "", false
}

// look lists the files of the links, first those that are the likeliest cause.
func (e *Explanation) look(k class) []Look {
	var all []Look
	if e.Facts.Path != "" {
		all = append(all, Look{Links: []int{}, Role: "the file that the line names", Path: e.Facts.Path})
	}
	if k.sense == ofFile && e.Facts.Path != "" {
		return all
	}
	add := func(number int, role string, s spot) {
		if s == (spot{}) {
			return
		}
		for i := range all {
			if all[i].Path == s.path && all[i].Role == role && (s.path != "" || all[i].Setting == s.setting) {
				all[i].Links = unique(append(all[i].Links, number))
				if s.setting != "" && !strings.Contains(all[i].Setting, s.setting) {
					all[i].Setting = strings.TrimPrefix(all[i].Setting+"; "+s.setting, "; ")
				}
				return
			}
		}
		all = append(all, Look{Links: []int{number}, Role: role, Path: s.path, Setting: s.setting})
	}
	for _, step := range e.order(k) {
		for _, n := range e.Links {
			l := linkOf(n)
			switch step {
			case roleServing:
				add(n, step, l.serving)
			case roleServerTrust:
				add(n, step, l.serverTrust)
			case roleClient:
				add(n, step, l.client)
			case roleClientTrust:
				add(n, step, l.clientTrust)
			}
		}
	}
	return append([]Look{}, all...)
}

// order tells which roles to look at, the likeliest cause first.
func (e *Explanation) order(k class) []string {
	server, client := []string{roleServing, roleServerTrust}, []string{roleClient, roleClientTrust}
	if k.bundle {
		slices.Reverse(server)
		slices.Reverse(client)
	}
	switch {
	case e.Half == HalfServer:
		return server
	case e.Half == HalfClient:
		return client
	case (k.sense == ofWire || k.sense == ofFile) && len(k.findings) == 0:
		return nil
	}
	return append(server, client...)
}

// next are the commands with which to go on.
func (e *Explanation) next(k class) []string {
	all := []string{}
	if e.Facts.Dialled != "" && k.sense != ofFile {
		all = append(all, "kubepki show "+quoteArg(e.Facts.Dialled))
	}
	for i, l := range e.Look {
		if l.Path == "" || k.sense == ofWire || len(all) > 2 || len(e.Look) > maxUseful {
			continue
		}
		if slices.ContainsFunc(e.Look[:i], func(before Look) bool { return before.Path == l.Path }) {
			continue // shown already, for its other part
		}
		switch {
		case strings.HasSuffix(l.Path, ".crt"):
			all = append(all, "openssl x509 -in "+quoteArg(l.Path)+" -noout -subject -issuer -serial -dates -ext subjectAltName,extendedKeyUsage")
		case strings.HasSuffix(l.Path, ".conf"):
			all = append(all, "kubepki show "+quoteArg(l.Path))
		}
	}
	return append(all, "sudo kubepki verify --live")
}

// maxUseful is how many files may come into question for commands about the first
// of them to be of use.
const maxUseful = 8

// quoteArg quotes an argument for a shell, where it needs it.
func quoteArg(text string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:[]@+,=", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !safe(r) || r == '[' }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// Bounds of [Lines].
const (
	maxLines    = 1_000_000
	maxDistinct = 1000
	maxSaid     = 4096 // texts that are remembered
)

// Lines explains each distinct error of many lines, in the order of their first,
// and tells how many lines hold no message of the catalogue. Of a line that is
// longer than [MaxLine] bytes the rest is left out.
func Lines(r io.Reader, component string) (all []*Explanation, others int, err error) {
	known := map[string]*Explanation{}
	// A process that fails says the same again and again.
	said := map[string]*Explanation{}
	in := bufio.NewReaderSize(r, MaxLine)
	for range maxLines {
		text, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return all, others, fmt.Errorf("reading the log: %w", err)
		}
		if strings.TrimSpace(text) != "" {
			l := parseLine(text)
			e, again := said[l.identity()]
			if !again {
				e = l.explain(text, component)
			}
			first := e
			if e != nil && known[e.key()] != nil {
				first = known[e.key()]
			}
			if len(said) < maxSaid && len(l.text) < maxShown {
				said[l.identity()] = first
			}
			switch {
			case e == nil:
				others++
			case first != e || again:
				first.Count++
			case len(all) == maxDistinct:
				return all, others, fmt.Errorf("more than %d different errors: give the lines of one component and a shorter time", maxDistinct)
			default:
				known[e.key()] = e
				all = append(all, e)
			}
		}
		if errors.Is(err, io.EOF) {
			return all, others, nil
		}
	}
	return all, others, fmt.Errorf("more than %d lines: give a shorter time", maxLines)
}

// readLine reads a line and drops what is beyond [MaxLine].
func readLine(in *bufio.Reader) (string, error) {
	text, err := in.ReadSlice('\n')
	kept := string(text)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	return kept, err
}

// key is the same for lines that say the same of the same: ports of callers,
// clocks and counters do not matter.
func (e *Explanation) key() string {
	f := e.Facts
	return fmt.Sprint(e.Component, e.Direction, e.Message, e.Links, f.Dialled, hostOf(f.Peer), f.Name, f.Serial, f.CommonName, f.NotAfter, f.Path, f.User, e.Node)
}
