package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
)

// The forms of JUnit's XML that Jenkins, GitLab and others read
// (jenkinsci/xunit-plugin, src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Time      string      `xml:"time,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Skipped *junitMessage `xml:"skipped"`
		Failure *junitMessage `xml:"failure"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// JUnit prints verifications as test results: a test for each half of each link,
// and one for each finding. A half that is broken failed, one that was not seen
// was skipped; a finding failed when it is as severe as FailOn.
type JUnit struct {
	w      io.Writer
	failOn check.Severity
	all    junitSuites
}

// NewJUnit prints nothing yet.
func NewJUnit(w io.Writer, failOn check.Severity) *JUnit {
	return &JUnit{w: w, failOn: failOn, all: junitSuites{Name: "kubepki verify"}}
}

// Add adds a cluster.
func (j *JUnit) Add(v *Verification) {
	s := junitSuite{Name: "kubepki verify", Timestamp: v.At.UTC().Format("2006-01-02T15:04:05"), Time: "0"}
	if v.Name != "" {
		s.Name += " " + Plain(v.Name)
	}
	for i := range v.Links {
		for _, h := range v.Links[i].Halves {
			s.Cases = append(s.Cases, v.junitHalf(i, h))
		}
	}
	for i := range v.Findings {
		s.Cases = append(s.Cases, j.finding(&v.Findings[i]))
	}
	s.Tests = len(s.Cases)
	for _, c := range s.Cases {
		if c.Failure != nil {
			s.Failures++
		}
		if c.Skipped != nil {
			s.Skipped++
		}
	}
	j.all.Tests += s.Tests
	j.all.Failures += s.Failures
	j.all.Suites = append(j.all.Suites, s)
}

func (v *Verification) junitHalf(link int, h VerifiedHalf) junitCase {
	l := &v.Links[link]
	c := junitCase{Class: "kubepki.link." + strconv.Itoa(l.Number), Name: Plain(fmt.Sprintf("%s → %s, %s", l.Caller, l.Callee, sideText(h.Side))), Time: "0"}
	switch h.State {
	case check.Unseen:
		c.Skipped = &junitMessage{Message: "not seen: a part of it is not in what was given"}
	case check.Broken:
		c.Failure = &junitMessage{Message: "broken", Type: "broken"}
		for i := range v.Findings {
			if f := &v.Findings[i]; f.Breaks(link, h.Side) {
				c.Failure.Message, c.Failure.Type = Plain(f.ID+": "+f.Cause), f.ID
				c.Failure.Text += findingText(f)
			}
		}
	default:
		c.Out = "proved by " + string(h.Proof)
	}
	return c
}

// sideText says whose credential a half judges.
func sideText(side string) string {
	if side == "client" {
		return "caller's credential"
	}
	return "callee's credential"
}

func (j *JUnit) finding(f *check.Finding) junitCase {
	where := strings.TrimPrefix(f.Node+":"+f.Path, ":")
	if f.Field != "" {
		where += " (" + f.Field + ")"
	}
	c := junitCase{Class: "kubepki.finding." + f.ID, Name: Plain(strings.TrimSpace(f.ID + " " + where)), Time: "0"}
	if f.Severity.AtLeast(j.failOn) {
		c.Failure = &junitMessage{Message: Plain(f.Cause), Type: string(f.Severity), Text: findingText(f)}
	} else {
		c.Out = string(f.Severity) + "\n" + findingText(f)
	}
	return c
}

// findingText says all of a finding, for a log.
func findingText(f *check.Finding) string {
	lines := []string{"cause: " + f.Cause}
	for _, p := range f.Places() {
		lines = append(lines, "where: "+p.String())
	}
	if f.Fix != "" {
		lines = append(lines, "fix:   "+f.Fix)
	}
	for i, l := range lines {
		lines[i] = Plain(l)
	}
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

// Close prints the document.
func (j *JUnit) Close() error {
	data, err := xml.MarshalIndent(j.all, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = fmt.Fprintf(j.w, "%s%s\n", xml.Header, data)
	return err
}
