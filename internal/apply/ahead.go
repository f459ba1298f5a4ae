package apply

import (
	"crypto"
	"runtime"
	"slices"
	"sync"

	"github.com/kubepki/kubepki/internal/issue"
)

// Ahead makes keys on all cores while it is still being found out what they are for:
// those of RSA take longer than all else of a renewal. It is safe for concurrent use.
type Ahead struct {
	mu   sync.Mutex
	cond *sync.Cond
	due  []issue.Algorithm // not begun yet
	busy map[issue.Algorithm]int
	made map[issue.Algorithm][]crypto.Signer
}

// MakeAhead begins to make keys. [Ahead.Only] ends it, or that all are taken.
func MakeAhead(algorithms []issue.Algorithm) *Ahead {
	a := &Ahead{due: algorithms, busy: map[issue.Algorithm]int{}, made: map[issue.Algorithm][]crypto.Signer{}}
	a.cond = sync.NewCond(&a.mu)
	for range min(len(algorithms), runtime.GOMAXPROCS(0)) {
		go a.work()
	}
	return a
}

func (a *Ahead) work() {
	for {
		a.mu.Lock()
		if len(a.due) == 0 {
			a.mu.Unlock()
			return
		}
		algorithm := a.due[0]
		a.due = a.due[1:]
		a.busy[algorithm]++
		a.mu.Unlock()
		key, err := issue.GenerateKey(algorithm)
		a.mu.Lock()
		a.busy[algorithm]--
		if err == nil { // else who takes it makes it, and says why not
			a.made[algorithm] = append(a.made[algorithm], key)
		}
		a.cond.Broadcast()
		a.mu.Unlock()
	}
}

// Only leaves out what is not needed: no more keys of an algorithm are begun than are
// counted here.
func (a *Ahead) Only(needed map[issue.Algorithm]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := map[issue.Algorithm]int{}
	for algorithm, n := range a.busy {
		have[algorithm] = n + len(a.made[algorithm])
	}
	var due []issue.Algorithm
	for _, algorithm := range a.due {
		if have[algorithm] < needed[algorithm] {
			have[algorithm]++
			due = append(due, algorithm)
		}
	}
	a.due = due
}

// Key is one that was made, or is being made; else a new one.
func (a *Ahead) Key(algorithm issue.Algorithm) (crypto.Signer, error) {
	a.mu.Lock()
	for len(a.made[algorithm]) == 0 && a.busy[algorithm] > 0 {
		a.cond.Wait()
	}
	if keys := a.made[algorithm]; len(keys) > 0 {
		a.made[algorithm] = keys[1:]
		a.mu.Unlock()
		return keys[0], nil
	}
	if i := slices.Index(a.due, algorithm); i >= 0 {
		a.due = append(a.due[:i:i], a.due[i+1:]...) // made here instead
	}
	a.mu.Unlock()
	return issue.GenerateKey(algorithm)
}
