package kubewatch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/kubewatch"
	"github.com/kubepki/kubepki/internal/tlstest"
)

// The variables by which this program, started again, is one that follows and does
// nothing else.
const (
	followServer = "KUBEPKI_TEST_FOLLOW"
	followCA     = "KUBEPKI_TEST_FOLLOW_CA"
)

func TestMain(m *testing.M) {
	if server := os.Getenv(followServer); server != "" {
		followAlone(server, os.Getenv(followCA))
		return
	}
	os.Exit(m.Run())
}

// followAlone prints how many certificates it keeps, whenever that changes.
func followAlone(server, caFile string) {
	agent.Slim()
	changes := make(chan struct{}, 1)
	w, err := kubewatch.New(&rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{CAFile: caFile}}, kubewatch.Options{Changed: func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { _ = w.Run(context.Background()) }()
	for range changes {
		n := 0
		w.Each(func(brief.Certificate) bool { n++; return true })
		fmt.Println(n)
	}
}

// TestNoKeyIsLeftInMemory reads the memory of a process that follows Secrets, from
// the first byte to the last.
func TestNoKeyIsLeftInMemory(t *testing.T) {
	a := newAPI(t)
	a.most = 100
	ca := tlstest.Authority(t, "root")
	certificate, _ := pair(t, "one", ca)
	const count = 300
	for i := range count {
		a.set(secret("ns", fmt.Sprintf("s%d", i), map[string][]byte{"tls.crt": certificate, "tls.key": fakeKey(i, 1700)}))
	}
	out, follower := startFollower(t, a)
	defer func() { _ = follower.Process.Kill(); _ = follower.Wait() }()
	lines := bufio.NewScanner(out)
	await := func(n int) {
		for lines.Scan() {
			if lines.Text() == fmt.Sprint(n) {
				return
			}
		}
		t.Fatal("it has ended")
	}
	await(count)
	for i := range 20 { // of several sizes, by the watch
		a.set(secret("ns", fmt.Sprintf("t%d", i), map[string][]byte{"tls.crt": certificate, "tls.key": fakeKey(count+i, 100+i*1500)}))
	}
	await(count + 20)
	// What was read is cleared as soon as more is waited for, which is at once.
	var found []string
	for range 20 {
		memory := readMemory(t, follower.Process.Pid)
		if !bytes.Contains(memory, []byte(a.URL)) {
			t.Fatal("that is not the memory of the process")
		}
		if found = marks(memory); len(found) <= inRegisters {
			return
		}
		runtime.GC()
		time.Sleep(100 * time.Millisecond) // another process has to go on
	}
	t.Errorf("%d keys are in memory: %.300q", len(found), found)
}

// inRegisters is how many lines of a key may be found: whenever the kernel interrupts a
// thread that copies, the registers of its processor, some hundred bytes, are saved on a
// stack for signals, and stay there until the next signal. Whole keys have a hundred
// lines.
const inRegisters = 12

// mark is in every line of a fake key, so that no part of one goes unseen.
const mark = "KuBePkI/key/"

func fakeKey(i, size int) []byte {
	line := fmt.Sprintf("%s%06d/", mark, i)
	return []byte("-----BEGIN PRIVATE KEY-----\n" + strings.Repeat(line+"\n", 1+size/len(line)) + "-----END PRIVATE KEY-----\n")
}

// marks are the fake keys in a memory, as they are or in base64.
func marks(memory []byte) []string {
	var found []string
	for _, m := range [][]byte{[]byte(mark), []byte(base64.StdEncoding.EncodeToString([]byte(mark)))} {
		for rest := memory; ; {
			i := bytes.Index(rest, m)
			if i < 0 {
				break
			}
			found = append(found, string(rest[i:min(len(rest), i+24)]))
			rest = rest[i+len(m):]
		}
	}
	return found
}

// readMemory reads what a process can write to: heap, stacks and data.
func readMemory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("the memory of another process of the same user cannot be read here: %v", err)
	}
	defer f.Close()
	var all []byte
	for line := range strings.SplitSeq(string(maps), "\n") {
		var start, end int64
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &rights); n < 3 || !strings.HasPrefix(rights, "rw") {
			continue
		}
		if end-start > 1<<30 {
			continue // what a race detector keeps beside, not the program
		}
		part := make([]byte, end-start)
		n, _ := f.ReadAt(part, start) // a part may be gone
		all = append(all, part[:n]...)
	}
	return all
}

// BenchmarkTenThousandSecrets tells how large a process is that follows them all.
func BenchmarkTenThousandSecrets(b *testing.B) {
	a := newAPI(b)
	a.most = 100
	ca := tlstest.Authority(b, "root")
	const count = 10_000
	for i := range count {
		certificate, _ := pair(b, fmt.Sprintf("service-%d.example.org", i), ca)
		a.set(secret(fmt.Sprintf("ns-%d", i%100), fmt.Sprintf("certificate-%d", i), map[string][]byte{"tls.crt": certificate, "tls.key": fakeKey(i, 1700), "ca.crt": certPEM(ca)}))
	}
	for b.Loop() {
		out, process := startFollower(b, a)
		for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != fmt.Sprint(2*count); {
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.SplitSeq(string(status), "\n") {
			var kb float64
			if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
				b.ReportMetric(kb/1024, "MB-resident")
			}
			if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
				b.ReportMetric(kb/1024, "MB-at-most")
			}
		}
		_ = process.Process.Kill()
		_ = process.Wait() // it was killed
	}
}

// startFollower starts this program again, to follow an API server.
func startFollower(t testing.TB, a *api) (io.Reader, *exec.Cmd) {
	t.Helper()
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	follower := exec.Command(self)
	follower.Env = append(os.Environ(), followServer+"="+a.URL, followCA+"="+caFile)
	out, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	return out, follower
}
