package load

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/kubepki/kubepki/internal/report"
)

// Report is what has become of all requests: the answer of kubepki-lab load.
type Report struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"` // LabLoad
	Started    time.Time      `json:"started"`
	Ended      time.Time      `json:"ended"`
	Requests   int            `json:"requests"`
	Failed     int            `json:"failed"`
	Streams    []StreamReport `json:"streams"`
	// NotHere are the streams whose link this lab does not have.
	NotHere  []NotHere `json:"notHere"`
	Failures []Failure `json:"failures"` // in the order in which they happened
	// FailuresOmitted are those that are too many for the list.
	FailuresOmitted int `json:"failuresOmitted,omitempty"`
	// LeftBehind tells which objects of the run are still in the cluster, and why.
	LeftBehind string `json:"leftBehind,omitempty"`
}

// StreamReport is what has become of the requests of one stream.
type StreamReport struct {
	Name     string `json:"name"`
	Link     int    `json:"link"`
	Requests int    `json:"requests"`
	Failures int    `json:"failures"`
	// P50Seconds and P99Seconds are the time that half, and 99 of 100, of the
	// requests that succeeded took at most.
	P50Seconds float64 `json:"p50Seconds"`
	P99Seconds float64 `json:"p99Seconds"`
	// LongestGapSeconds is the longest time without a success, from the end of one
	// to the end of the next.
	LongestGapSeconds float64 `json:"longestGapSeconds"`
}

// NotHere is a stream that this lab has no link for.
type NotHere struct {
	Stream string `json:"stream"`
	Link   int    `json:"link"`
	Why    string `json:"why"`
}

// Progress is how far a run is.
type Progress struct {
	Elapsed            time.Duration
	Requests, Failures int
}

// Table prints the report for people.
func (r *Report) Table(w io.Writer) error {
	head := []string{"STREAM", "LINK", "REQUESTS", "FAILURES", "P50", "P99", "LONGEST GAP"}
	var rows [][]string
	for _, s := range r.Streams {
		row := []string{s.Name, strconv.Itoa(s.Link), strconv.Itoa(s.Requests), strconv.Itoa(s.Failures), "–", "–", short(s.LongestGapSeconds)}
		if s.Requests > s.Failures {
			row[4], row[5] = short(s.P50Seconds), short(s.P99Seconds)
		}
		rows = append(rows, row)
	}
	for _, n := range r.NotHere {
		rows = append(rows, []string{n.Stream, strconv.Itoa(n.Link), "not here", "–", "–", "–", "–"})
	}
	if err := report.Table(w, head, rows); err != nil {
		return err
	}
	for i, n := range r.NotHere {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "not here: %s: %s\n", n.Stream, n.Why)
	}
	_, err := fmt.Fprintf(w, "\n%d requests in %s, %d failed\n", r.Requests, r.Ended.Sub(r.Started).Round(time.Second), r.Failed)
	if r.LeftBehind != "" {
		fmt.Fprintf(w, "left behind in the cluster: %s\n", r.LeftBehind)
	}
	return err
}

// short is a duration with two or three digits.
func short(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
