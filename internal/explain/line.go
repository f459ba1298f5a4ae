package explain

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// MaxLine is how many bytes of one line are looked at.
const MaxLine = 64 << 10

// line is a log line without what journald, a container runtime or a logger put
// around it.
type line struct {
	text      string // the message and, behind it, its fields as KEY="VALUE"
	component string // whose log it is, as its frame tells; empty when it does not
	node      string
	klog      bool
}

// identity is the same for lines that differ only in when they were written.
func (l *line) identity() string { return l.component + "\x00" + l.node + "\x00" + l.text }

// frames are what stands before the message, outermost first.
var frames = []*regexp.Regexp{
	// kubectl logs --prefix
	regexp.MustCompile(`^\[pod/(?P<pod>[^/\]]+)/(?P<component>[^\]]+)\] *`),
	// journalctl, syslog: with a date or an RFC 3339 time
	regexp.MustCompile(`^(?:[A-Z][a-z]{2} +\d+ [\d:.]+|\d{4}-\d\d-\d\d[T ]\S+) (?P<node>[\w.-]+) (?P<component>[\w.-]+)(?:\[\d+\])?: `),
	// the container runtime's files
	regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [FP] `),
	// klog
	regexp.MustCompile(`^[IWEF]\d{4} [\d:.]+ +\d+ (?P<source>[^\]\s]+:\d+)\] *`),
}

// parseLine takes the frames off a line.
func parseLine(text string) line {
	if len(text) > MaxLine {
		text = text[:MaxLine]
	}
	l := line{text: strings.TrimSpace(text)}
	source := ""
	for range 2 * len(frames) {
		before := l.text
		for _, f := range frames {
			m := f.FindStringSubmatch(l.text)
			if m == nil {
				continue
			}
			l.text = l.text[len(m[0]):]
			for i, name := range f.SubexpNames() {
				switch {
				case m[i] == "":
				case name == "component":
					l.component = m[i]
				case name == "node":
					l.node = m[i]
				case name == "source":
					source = m[i]
				}
			}
			if pod := f.SubexpIndex("pod"); pod > 0 {
				l.node = strings.TrimPrefix(m[pod], l.component+"-")
			}
		}
		l.unwrapJSON()
		if l.text == before {
			break
		}
	}
	if l.klog = source != ""; l.klog {
		l.text = source + "] " + l.text
	}
	// Loggers quote what they print as a field.
	l.text = strings.NewReplacer(`\\"`, `"`, `\"`, `"`, `\n`, " ", `\t`, " ").Replace(l.text)
	return l
}

// unwrapJSON takes a line of a JSON logger apart: zap's of etcd, klog's, Docker's.
func (l *line) unwrapJSON() {
	if !strings.HasPrefix(l.text, "{") {
		return
	}
	var object map[string]any
	if json.Unmarshal([]byte(l.text), &object) != nil {
		return
	}
	if inner, ok := object["log"].(string); ok { // Docker
		l.text = strings.TrimSpace(inner)
		return
	}
	fields := map[string]string{}
	for key, value := range object {
		if text, ok := value.(string); ok {
			fields[key] = text
		}
	}
	if fields["msg"] == "" && fields["error"] == "" && fields["err"] == "" {
		return
	}
	var b strings.Builder
	b.WriteString(fields["msg"])
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != "msg" && key != "ts" {
			b.WriteString(" " + key + "=\"" + fields[key] + "\"")
		}
	}
	l.text = b.String()
}
