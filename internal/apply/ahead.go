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
//
// How long a key of RSA takes is chance, and the chance does not depend on how long it
// has taken already. So a core that has none left to begin begins another one of those
// that are waited for: who waits gets what is ready first. The one too many is given
// to nobody.
type Ahead struct {
	mu      sync.Mutex
	cond    *sync.Cond
	workers int               // goroutines
	due     []issue.Algorithm // not begun yet
	busy    map[issue.Algorithm]int
	made    map[issue.Algorithm][]crypto.Signer
	waiting map[issue.Algorithm]int  // calls of Key that wait for one that is busy
	failed  map[issue.Algorithm]bool // who takes it makes it, and says why not
}

// MakeAhead begins to make keys. [Ahead.Only] ends it, or that all are taken: no more
// is begun then, and a key that is being made is the last of its goroutine.
func MakeAhead(algorithms []issue.Algorithm) *Ahead {
	a := &Ahead{busy: map[issue.Algorithm]int{}, made: map[issue.Algorithm][]crypto.Signer{},
		waiting: map[issue.Algorithm]int{}, failed: map[issue.Algorithm]bool{}}
	a.cond = sync.NewCond(&a.mu)
	a.Begin(algorithms)
	return a
}

// Begin is told again, and better, which keys are needed: those that were begun before
// count among them.
func (a *Ahead) Begin(algorithms []issue.Algorithm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	begun := map[issue.Algorithm]int{}
	for algorithm, n := range a.busy {
		begun[algorithm] = n + len(a.made[algorithm])
	}
	a.due = nil
	for _, algorithm := range algorithms {
		if begun[algorithm]--; begun[algorithm] < 0 {
			a.due = append(a.due, algorithm)
		}
	}
	for range min(len(a.due), runtime.GOMAXPROCS(0)-a.workers) {
		a.workers++
		go a.work()
	}
	a.cond.Broadcast() // to the cores that have nothing to do
}

func (a *Ahead) work() {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.workers-- }()
	for {
		algorithm, ok := a.next()
		if !ok {
			return
		}
		a.busy[algorithm]++
		a.mu.Unlock()
		key, err := issue.GenerateKey(algorithm)
		a.mu.Lock()
		a.busy[algorithm]--
		if err == nil {
			a.made[algorithm] = append(a.made[algorithm], key)
		} else {
			a.failed[algorithm] = true
		}
		a.cond.Broadcast()
	}
}

// next is what to begin: what is due, then what is waited for. Nothing is left when
// nothing is busy.
func (a *Ahead) next() (issue.Algorithm, bool) {
	for {
		if len(a.due) > 0 {
			algorithm := a.due[0]
			a.due = a.due[1:]
			return algorithm, true
		}
		underWay := 0
		for algorithm, n := range a.busy {
			underWay += n
			if n > 0 && a.waiting[algorithm] > len(a.made[algorithm]) && !a.failed[algorithm] {
				return algorithm, true
			}
		}
		if underWay == 0 {
			return "", false
		}
		a.cond.Wait()
	}
}

// Only leaves out what is not needed: no more keys of an algorithm are begun than are
// counted here, but for those that are waited for.
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
	if key := a.take(algorithm); key != nil {
		return key, nil
	}
	return issue.GenerateKey(algorithm)
}

// take waits for a key that is being made. It is nil where none is.
func (a *Ahead) take(algorithm issue.Algorithm) crypto.Signer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[algorithm]++
	defer func() { a.waiting[algorithm]-- }()
	a.cond.Broadcast() // to the core that has nothing to do
	for len(a.made[algorithm]) == 0 && a.busy[algorithm] > 0 {
		a.cond.Wait()
	}
	if keys := a.made[algorithm]; len(keys) > 0 {
		a.made[algorithm] = keys[1:]
		return keys[0]
	}
	if i := slices.Index(a.due, algorithm); i >= 0 {
		a.due = append(a.due[:i:i], a.due[i+1:]...) // made here instead
	}
	return nil
}
