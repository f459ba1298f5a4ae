//go:build linux

package lab_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// reloadRow is one measurement of the reload matrix: settings of a component
// whose files are replaced together.
type reloadRow struct {
	component string
	settings  []string
	instance  string // the process; empty: that of the component's name
	// as says what else than the matrix's row is looked at, and want what is to
	// be seen there, where it is not what the matrix says.
	as   string
	want *catalog.Takeup
	// change replaces the files. It returns when the last of them is.
	change func(context.Context) error
	// seen tells whether the change is in use. An error says that it could not
	// be looked at. It is called from one goroutine at a time.
	seen  func(context.Context) (bool, error)
	every time.Duration // between two looks; 0: lookEvery
	// live checks what became of a connection from before the change, once
	// that is in use by itself.
	live func(context.Context) error
	// notify, where it is set, makes the kernel notify the component of a change
	// that it was not notified of: a symbolic link was switched.
	notify func() error
}

func (r *reloadRow) name() string {
	name := strings.TrimSpace(r.component + " " + strings.Join(r.settings, " ") + " " + r.as)
	if r.notify != nil {
		name += " by a link"
	}
	return name
}

const (
	lookEvery = 250 * time.Millisecond
	// A look may come late on a busy machine.
	lookMargin = 20 * time.Second
	// atOnce is what a new handshake may take.
	atOnce = 5 * time.Second
	// What is not in use after this is not taken up by itself: longer than any
	// interval of the upstream sources, or, in the quick run, than those of a
	// minute.
	longPatience  = 5*time.Minute + 45*time.Second
	quickPatience = 75 * time.Second
)

// figure is what was measured of one row.
type figure struct {
	Component string   `json:"component"`
	Settings  []string `json:"settings"`
	As        string   `json:"as,omitempty"`
	// Seconds until the change was in use without a restart; nil: it was not,
	// for as long as Figures.Waited.
	Seconds *float64 `json:"seconds"`
	// AfterRestart tells that the change was in use after a restart; nil: that
	// was not looked at.
	AfterRestart *bool `json:"afterRestart,omitempty"`
	// Link tells that a symbolic link was switched, and its old target stayed.
	Link     bool `json:"link,omitempty"`
	problems []error
}

// figures are the measurements of one version.
type figures struct {
	Kubernetes string    `json:"kubernetes"`
	Etcd       string    `json:"etcd"`
	Date       string    `json:"date"`
	Waited     float64   `json:"waitedSeconds"`
	Rows       []*figure `json:"rows"`
}

// The reload matrix of the catalog is what is seen on the real components. The
// quick run looks at what is decided within quickPatience; KUBEPKI_LAB_LONG
// asks for all, and KUBEPKI_LAB_FIGURES names a folder for what was measured.
func TestComponentsTakeUpFilesAsTheMatrixSays(t *testing.T) {
	long := os.Getenv("KUBEPKI_LAB_LONG") != ""
	patience := quickPatience
	if long {
		patience = longPatience
	}
	kubernetes, etcd := version(t, "kube-apiserver"), version(t, "etcd")
	b := newBench(t)
	all := b.reloadRows()
	measured, wants, later := b.chooseRows(all, kubernetes, etcd, long)
	got := measure(t.Context(), measured, wants, patience)
	b.stillRun()
	b.restartAndLook(measured, wants, got, long)
	for i, r := range measured {
		t.Run(r.name(), func(t *testing.T) {
			t.Log(got[i])
			for _, problem := range got[i].problems {
				t.Error(problem)
			}
		})
	}
	for _, r := range later {
		t.Run(r.name(), func(t *testing.T) {
			t.Skipf("takes longer than %s: set KUBEPKI_LAB_LONG, as make test-long does", quickPatience)
		})
	}
	t.Logf("Kubernetes %s, etcd %s: %d measured, %d left for the long run", kubernetes, etcd, len(measured), len(later))
	if dir := os.Getenv("KUBEPKI_LAB_FIGURES"); dir != "" && !t.Failed() {
		writeFigures(t, dir, &figures{kubernetes, etcd, time.Now().UTC().Format(time.DateOnly), patience.Seconds(), got})
	}
}

// chooseRows looks each row up in the catalog, and leaves those for later that
// the quick run does not decide.
func (b *bench) chooseRows(all []*reloadRow, kubernetes, etcd string, long bool) (now []*reloadRow, wants []catalog.Takeup, later []*reloadRow) {
	b.t.Helper()
	for _, r := range all {
		want, ok := catalog.Reload(r.component, r.settings[0], versionOf(r.component, kubernetes, etcd))
		if !ok {
			b.t.Errorf("the matrix has no row for %s", r.name())
			continue
		}
		if r.want != nil {
			now, wants = append(now, r), append(wants, *r.want)
			continue
		}
		for _, setting := range r.settings[1:] {
			if other, _ := catalog.Reload(r.component, setting, versionOf(r.component, kubernetes, etcd)); other != want {
				b.t.Errorf("%s: the matrix says %+v and %+v", r.name(), want, other)
			}
		}
		if !long && slow(r) {
			later = append(later, r)
			continue
		}
		now, wants = append(now, r), append(wants, want)
	}
	return now, wants, later
}

// slow tells whether some version needs longer than the quick run waits.
func slow(r *reloadRow) bool {
	return slices.ContainsFunc(catalog.Reloads(), func(row catalog.ReloadRow) bool {
		return row.Component == r.component && row.Setting == r.settings[0] && row.Within > time.Minute
	})
}

func versionOf(component, kubernetes, etcd string) string {
	if component == catalog.Etcd {
		return etcd
	}
	return kubernetes
}

// measure changes all at the same time and watches each.
func measure(ctx context.Context, rows []*reloadRow, wants []catalog.Takeup, patience time.Duration) []*figure {
	got := make([]*figure, len(rows))
	var all sync.WaitGroup
	for i, r := range rows {
		got[i] = &figure{Component: r.component, Settings: r.settings, As: r.as, Link: r.notify != nil}
		all.Go(func() {
			if r.notify != nil {
				got[i].measureLink(ctx, r, wants[i], patience)
				return
			}
			got[i].measure(ctx, r, wants[i], patience)
		})
	}
	all.Wait()
	return got
}

func (f *figure) fail(format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf(format, args...))
}

// begin changes the files. What is to come must not be in use yet: else the row
// would show nothing.
func (f *figure) begin(ctx context.Context, r *reloadRow) bool {
	if seen, err := looked(ctx, r, 30*time.Second, func(bool) bool { return true }); err != nil || seen {
		f.fail("before the change: in use %t, %v", seen, err)
	} else if err := r.change(ctx); err != nil {
		f.fail("change: %v", err)
	}
	return len(f.problems) == 0
}

// measureLink measures a change of which no notification comes.
func (f *figure) measureLink(ctx context.Context, r *reloadRow, want catalog.Takeup, patience time.Duration) {
	if !want.Notified {
		f.fail("the matrix does not say that notifications are needed")
	}
	if !f.begin(ctx, r) {
		return
	}
	if seen, err := looked(ctx, r, patience, func(seen bool) bool { return seen }); seen || err != nil {
		f.fail("without a notification: in use %t, %v; the matrix says that it is not", seen, err)
		return
	}
	if err := r.notify(); err != nil {
		f.fail("notify: %v", err)
	} else if seen, err := looked(ctx, r, atOnce+lookMargin, func(seen bool) bool { return seen }); !seen {
		f.fail("after a notification: not in use, %v", err)
	}
}

func (f *figure) measure(ctx context.Context, r *reloadRow, want catalog.Takeup, patience time.Duration) {
	if !f.begin(ctx, r) {
		return
	}
	begin := time.Now()
	limit := map[catalog.Manner]time.Duration{
		catalog.AtHandshake: atOnce, catalog.ByItself: want.Within, catalog.AtRestart: patience,
	}[want.Manner] + lookMargin
	if want.Manner == catalog.AtRestart {
		limit = patience
	}
	seen, err := looked(ctx, r, limit, func(seen bool) bool { return seen })
	took := time.Since(begin)
	switch {
	case err != nil:
		f.fail("after the change: %v", err)
	case seen && want.Manner == catalog.AtRestart:
		f.fail("in use after %s without a restart; the matrix says that it needs one", took.Round(time.Millisecond))
	case !seen && want.Manner != catalog.AtRestart:
		f.fail("not in use after %s; the matrix says %s, within %s", took.Round(time.Second), want.Manner, cmp.Or(want.Within, atOnce))
	}
	if seen {
		seconds := float64(took.Milliseconds()) / 1000
		f.Seconds = &seconds
		if r.live != nil {
			if err := r.live(ctx); err != nil {
				f.fail("live connections: %v; the matrix says %q", err, want.Live)
			}
		}
	}
}

// looked looks until it is enough or the time is over, and returns what was
// seen last. A look that fails shows nothing: then it looks again for a while
// after the time, and it is an error if that fails too.
func looked(ctx context.Context, r *reloadRow, limit time.Duration, enough func(bool) bool) (bool, error) {
	end := time.Now().Add(limit)
	for {
		look, cancel := context.WithTimeout(ctx, 30*time.Second)
		seen, err := r.seen(look)
		cancel()
		late := time.Since(end)
		if err == nil && (enough(seen) || late > 0) || late > time.Minute {
			return seen, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(cmp.Or(r.every, lookEvery)):
		}
	}
}

// stillRun checks that no instance has ended: nothing was restarted so far. A
// kubelet without a client certificate ends by itself after five minutes (k/k
// pkg/kubelet/certificate/transport.go), so that its service starts it anew.
func (b *bench) stillRun() {
	b.t.Helper()
	for _, instance := range instances {
		if instance == joining {
			continue
		}
		select {
		case <-b.processes[instance].Done():
			b.t.Errorf("%s has ended by itself:\n%s", instance, b.processes[instance].Log())
		default:
		}
	}
}

// restartAndLook is the other half of each row: after a restart the change is
// in use, so that it is a change at all. The quick run restarts only what has
// to be.
func (b *bench) restartAndLook(rows []*reloadRow, wants []catalog.Takeup, got []*figure, long bool) {
	b.t.Helper()
	needed := map[string]bool{}
	for i, r := range rows {
		if long || wants[i].Manner == catalog.AtRestart {
			needed[cmp.Or(r.instance, r.component)] = true
		}
	}
	for _, instance := range instances {
		if needed[instance] {
			b.restart(instance)
		}
	}
	var all sync.WaitGroup
	for i, r := range rows {
		if r.notify != nil || !long && wants[i].Manner != catalog.AtRestart {
			continue
		}
		all.Go(func() {
			seen, err := looked(b.t.Context(), r, readyWait, func(seen bool) bool { return seen })
			if got[i].AfterRestart = &seen; !seen {
				got[i].fail("not in use after a restart: %v", err)
			}
		})
	}
	all.Wait()
}

func (f *figure) String() string {
	s := "not taken up without a restart"
	if f.Link {
		s = "not taken up without a notification"
	}
	if f.Seconds != nil {
		s = fmt.Sprintf("taken up after %.1f s", *f.Seconds)
	}
	if f.AfterRestart != nil {
		s += fmt.Sprintf("; in use after a restart: %t", *f.AfterRestart)
	}
	return s
}

func writeFigures(t *testing.T, dir string, f *figures) {
	t.Helper()
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reload-"+f.Kubernetes+".json"), append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// errWait says that there is nothing to judge yet.
var errWait = errors.New("nothing to look at yet")
