package apart

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recordEnv is a folder in which each subject leaves a file; failEnv names the one
// that fails. Without the first the subjects are no tests.
const (
	recordEnv = "APART_TEST_RECORD"
	failEnv   = "APART_TEST_FAIL"
	firstEnv  = "APART_TEST_FIRST"
)

func TestMain(m *testing.M) {
	code, ran := Main(strings.Fields(os.Getenv(firstEnv))...)
	if !ran {
		code = m.Run()
	}
	os.Exit(code)
}

// subject is a test that the driver lets run in processes of their own.
func subject(t *testing.T) {
	dir := os.Getenv(recordEnv)
	if dir == "" {
		t.Skip("is run by TestEachTestRunsOnceInAProcessOfItsOwn")
	}
	process, err := os.Readlink("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, t.Name()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err) // a second time
	}
	defer f.Close()
	if _, err := f.WriteString(process); err != nil {
		t.Fatal(err)
	}
	switch os.Getenv(failEnv) {
	case t.Name():
		t.Errorf("%s says why", t.Name())
	case t.Name() + " by exit":
		os.Exit(3)
	}
}

func TestSubject(t *testing.T)       { subject(t) }
func TestSubjectLonger(t *testing.T) { subject(t) } // a name that begins as another
func TestSubjectC(t *testing.T)      { subject(t) }
func TestSubjectD(t *testing.T)      { subject(t) }
func TestSubjectE(t *testing.T)      { subject(t) }

func TestEachTestRunsOnceInAProcessOfItsOwn(t *testing.T) {
	if os.Getenv(recordEnv) != "" {
		t.Skip("is the driver")
	}
	subjects := []string{"TestSubject", "TestSubjectC", "TestSubjectD", "TestSubjectE", "TestSubjectLonger"}
	for name, row := range map[string]struct {
		env, args  []string
		processes  int // of the subjects
		fails      bool
		want, none string
	}{
		"all pass":                              {processes: 5, want: "PASS\n", none: "FAIL"},
		"one fails":                             {env: []string{failEnv + "=TestSubjectD"}, processes: 5, fails: true, want: "TestSubjectD says why", none: "PASS"},
		"one ends its process":                  {env: []string{failEnv + "=TestSubjectC by exit"}, processes: 5, fails: true, want: "FAIL: TestSubjectC: exit status 3"},
		"a test that is there runs first":       {env: []string{firstEnv + "=TestSubjectE"}, processes: 5, want: "PASS\n"},
		"one that is not there is a failure":    {env: []string{firstEnv + "=TestGone"}, fails: true, want: "TestGone is to run first"},
		"a number that is none is a failure":    {env: []string{processesEnv + "=many"}, fails: true, want: "give a number of processes"},
		"one process is one":                    {env: []string{processesEnv + "=1"}, processes: 1, want: "PASS\n"},
		"flags that choose tests make it one":   {args: []string{"-test.run=TestSubject"}, processes: 1, want: "PASS\n"},
		"what each has done is shown, if asked": {args: []string{"-test.v"}, processes: 5, want: "--- PASS: TestSubjectLonger"},
	} {
		t.Run(name, func(t *testing.T) {
			record := t.TempDir()
			cmd := exec.Command(os.Args[0], row.args...)
			cmd.Env = slices.Concat(os.Environ(), []string{processesEnv + "=3", recordEnv + "=" + record}, row.env)
			out, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.fails || !strings.Contains(string(out), row.want) || row.none != "" && strings.Contains(string(out), row.none) {
				t.Errorf("%v, want a failure %t, %q and not %q:\n%s", err, row.fails, row.want, row.none, out)
			}
			processes := map[string]bool{}
			for _, name := range subjects {
				pid, err := os.ReadFile(filepath.Join(record, name))
				if err != nil && row.processes > 0 {
					t.Errorf("%s has not run: %v", name, err)
				} else if err == nil {
					processes[string(pid)] = true
				}
			}
			if len(processes) != row.processes {
				t.Errorf("%d processes, want %d", len(processes), row.processes)
			}
		})
	}
}
