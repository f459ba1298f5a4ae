package report

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
)

// Workload is one row of `kubepki cert status`.
type Workload struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ready     bool   `json:"ready"` // as the condition says, for the spec as it is
	Issuing   bool   `json:"issuing"`
	// Reason and Message are those of the condition that tells most: Issuing while an
	// issuance is under way or has failed, else Ready.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Severity is error where it is not ready, over or failing; warning where it ends
	// within the window or its renewal is late; absent where all is well.
	Severity  check.Severity `json:"severity,omitempty"`
	NotBefore *time.Time     `json:"notBefore,omitempty"`
	NotAfter  *time.Time     `json:"notAfter,omitempty"`
	RenewAt   *time.Time     `json:"renewAt,omitempty"`
	Revision  int            `json:"revision,omitempty"`
	Failures  int            `json:"failures,omitempty"`
	Issuer    string         `json:"issuer"` // KIND/NAME, with the group after the kind where it is another
	Secret    string         `json:"secret"`
	Names     []string       `json:"names"`
	Duration  string         `json:"duration,omitempty"`
}

// lateRenewal is how long after its time a renewal is late.
const lateRenewal = 10 * time.Minute

// Judge sets the severity, as of a time; what ends within the window is a warning.
func (r *Workload) Judge(at time.Time, window time.Duration) {
	ends := r.NotAfter != nil && r.NotAfter.Before(at.Add(window))
	switch {
	case r.NotAfter != nil && r.NotAfter.Before(at), !r.Ready && (!r.Issuing || r.Failures > 0):
		r.Severity = check.Error
	case !r.Ready, ends, r.Failures > 0, r.RenewAt != nil && !r.Issuing && at.Sub(*r.RenewAt) > lateRenewal:
		r.Severity = check.Warning
	}
}

// WorkloadList is the answer of `kubepki cert status`.
type WorkloadList struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	At         time.Time  `json:"at"`
	Items      []Workload `json:"items"`
}

// NewWorkloadList sorts what is most urgent to the top: what is wrong, then what ends
// first.
func NewWorkloadList(at time.Time, items []Workload) *WorkloadList {
	rank := map[check.Severity]int{check.Error: 0, check.Warning: 1}
	of := func(s check.Severity) int {
		if n, ok := rank[s]; ok {
			return n
		}
		return 2
	}
	end := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	slices.SortStableFunc(items, func(a, b Workload) int {
		return cmp.Or(of(a.Severity)-of(b.Severity), end(a.NotAfter).Compare(end(b.NotAfter)), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	if items == nil {
		items = []Workload{}
	}
	return &WorkloadList{APIVersion: APIVersion, Kind: "WorkloadCertificateList", At: at.UTC().Truncate(time.Second), Items: items}
}

// Worst tells whether any row is as severe as a severity, or more.
func (l *WorkloadList) Worst(s check.Severity) bool {
	return slices.ContainsFunc(l.Items, func(r Workload) bool {
		return r.Severity == check.Error || r.Severity == check.Warning && s != check.Error
	})
}

// Rows prints the table; namespaces adds the column, wide the names and the message.
func (l *WorkloadList) Rows(w io.Writer, namespaces, wide bool, p Palette) error {
	head := []string{"NAME", "READY", "REASON", "EXPIRES", "RENEWS", "ISSUER", "SECRET"}
	if namespaces {
		head = slices.Insert(head, 0, "NAMESPACE")
	}
	if wide {
		head = append(head, "REVISION", "NAMES", "MESSAGE")
	}
	var rows [][]string
	for i := range l.Items {
		rows = append(rows, l.Items[i].row(l.At, namespaces, wide, p))
	}
	return Table(w, head, rows)
}

func (r *Workload) row(at time.Time, namespaces, wide bool, p Palette) []string {
	ready := "no"
	switch {
	case r.NotAfter != nil && r.NotAfter.Before(at): // whatever the condition says: it may be old
	case r.Ready && r.Issuing:
		ready = "renewing"
	case r.Ready:
		ready = "yes"
	case r.Issuing:
		ready = "issuing"
	}
	if r.Severity == check.Error {
		ready = p.Red(ready)
	}
	row := []string{Plain(r.Name), ready, orNone(Plain(r.Reason)), "-", "-", Plain(r.Issuer), orNone(Plain(r.Secret))}
	if r.NotAfter != nil {
		begin := at
		if r.NotBefore != nil {
			begin = *r.NotBefore
		}
		row[3] = p.left(begin, *r.NotAfter, at)
	}
	if r.RenewAt != nil {
		row[4] = until(*r.RenewAt, at)
	}
	if namespaces {
		row = slices.Insert(row, 0, Plain(r.Namespace))
	}
	if wide {
		row = append(row, strconv.Itoa(r.Revision), orNone(Plain(strings.Join(r.Names, ","))), orNone(curtail(Plain(r.Message), rowText)))
	}
	return row
}

// until says in how long something is, or since when it is late.
func until(t, at time.Time) string {
	if t.Before(at) {
		return roughly(at.Sub(t)) + " ago"
	}
	return "in " + roughly(t.Sub(at))
}
