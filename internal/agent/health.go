package agent

import (
	"fmt"
	"net/http"
	"time"
)

// StuckAfter is how long the loop may take for one round before the agent counts as
// stuck, and whoever runs it should start it anew; see [Board.StuckAfter].
const StuckAfter = 30 * time.Minute

// StuckAfter sets how long one round may take, for an agent that goes round seldom.
func (b *Board) StuckAfter(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuckAfter = d
}

// Alive returns why the agent should be started anew; nil: it should not.
func (s *Snapshot) Alive() error {
	if still := s.At.Sub(s.Progress); still > s.stuckAfter {
		return fmt.Errorf("the loop has not gone round for %s", still.Round(time.Second))
	}
	return nil
}

// Ready returns why what is shown is not whole yet; nil: everything was read once, or
// is known not to be readable.
func (s *Snapshot) Ready() error {
	if err := s.Alive(); err != nil {
		return err
	}
	if s.Verified == nil {
		if s.Failure != nil {
			return fmt.Errorf("the files cannot be read: %w", s.Failure.Err)
		}
		return fmt.Errorf("the files have not been read yet")
	}
	for _, source := range s.Sources() {
		if !source.Read && source.Reason == "" {
			return fmt.Errorf("%s have not been read yet", source.Name)
		}
	}
	return nil
}

// answer serves one of the two.
func (b *Board) answer(ask func(*Snapshot) error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		s := b.Snapshot()
		if err := ask(&s); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // whoever asked may be gone
	}
}
