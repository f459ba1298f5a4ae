package remote_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/testpki"
)

// restarts is a machine's runner that takes its time.
type restarts struct {
	locked, begun chan struct{}
	takes         time.Duration
	err           error
	held          bool
}

func (r *restarts) Begin() (func(), []string, error) {
	if r.held {
		return nil, nil, errors.New("another restart of this node is under way")
	}
	return func() { close(r.locked) }, []string{"a manifest is back"}, nil
}

func (r *restarts) Plan(_ context.Context, node string, files []string, _ remote.RestartOptions) ([]remote.Restart, error) {
	return []remote.Restart{{Component: "kubelet", Of: node, Why: files}}, nil
}

func (r *restarts) Restart(context.Context, string, remote.RestartOptions) (*remote.Restarted, error) {
	close(r.begun)
	time.Sleep(r.takes)
	return &remote.Restarted{How: "somehow", Took: r.takes}, r.err
}

func TestRestartsOfAnotherMachine(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	o := remote.RestartOptions{Timeout: 20 * time.Second}
	for name, row := range map[string]struct {
		r     *restarts
		locks bool
		says  string
	}{
		"one that takes longer than an answer does is waited for": {&restarts{takes: 2 * time.Second}, true, ""},
		"what went wrong there is told":                           {&restarts{err: errors.New("kubelet did not come back")}, true, "w1: kubelet did not come back"},
		"one that others are not kept away from is not begun":     {&restarts{}, false, "other restarts were not kept away"},
		"another one that is under way is not disturbed":          {&restarts{held: true}, true, "another restart of this node is under way"},
		"a machine that restarts nothing says so":                 {nil, true, "nothing is restarted from here"},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			server := &remote.Server{Root: filepath.Join(c.Dir, "w1"), Version: "v1"}
			if row.r != nil {
				row.r.locked, row.r.begun, server.Restarter = make(chan struct{}), make(chan struct{}), row.r
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = server.Serve(context.WithoutCancel(t.Context()), there, there)
			}()

			client, err := remote.Connect(t.Context(), "w1", "v1", here, here, func() { here.Close() }, 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			client.LocksRestarts = row.locks
			told, err := client.Read(t.Context(), true)
			if err == nil && row.locks && !strings.Contains(strings.Join(told.Said, ""), "a manifest is back") {
				t.Errorf("said %v", told.Said)
			}
			if err == nil {
				_, err = client.Restarts(t.Context(), nil, o)
			}
			if err == nil {
				client.Patience = time.Second // less than the restart takes
				var done *remote.Restarted
				if done, err = client.Restart(t.Context(), "kubelet", o); err == nil && done.How != "somehow" {
					t.Errorf("done %+v", done)
				}
			}
			if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("want %q, got %v", row.says, err)
			}
			client.Close()
			<-ended
			if row.r != nil && row.locks && !row.r.held {
				select {
				case <-row.r.locked:
				default:
					t.Error("others are kept away still")
				}
			}
		})
	}
}
