package workload

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// zoneFolders are where package time looks for zones, beside what is built in.
var zoneFolders = []string{"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"}

const withoutZones = "KUBEPKI_TEST_WITHOUT_ZONES"

// TestWindowsWithoutAZoneDatabase runs itself where no zone database is to be seen, as in an
// image without one.
func TestWindowsWithoutAZoneDatabase(t *testing.T) {
	if os.Getenv(withoutZones) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWindowsWithoutAZoneDatabase$", "-test.v")
		cmd.Env = append(os.Environ(), withoutZones+"=1", "GOROOT=/nowhere", "ZONEINFO=")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
			t.Skipf("this machine allows no namespaces of users: %v", err)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, dir := range zoneFolders {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			t.Fatalf("hiding %s: %v", dir, err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) > 0 {
			t.Fatalf("%s is not hidden: %d, %v", dir, len(all), err)
		}
	}
	// Three in the morning of New York is eight in UTC in winter, and seven in summer.
	for month, hour := range map[time.Month]int{time.January: 8, time.July: 7} {
		begin := time.Date(2026, month, 1, 0, 0, 0, 0, time.UTC)
		spec := &cmapi.CertificateSpec{Renewal: &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyRenewBefore, Windows: []cmapi.CertificateRenewalWindows{
			{Cron: "0 3 * * *", Timezone: "America/New_York", WindowDuration: &metav1.Duration{Duration: time.Hour}},
		}}}
		got, err := RenewalTime(begin, begin.AddDate(0, 0, 3), spec)
		if want := begin.AddDate(0, 0, 2).Add(time.Duration(hour) * time.Hour); err != nil || !got.Equal(want) {
			t.Errorf("%s, %v; want %s", got.UTC(), err, want)
		}
	}
	if _, err := time.LoadLocation("Nowhere/Land"); err == nil {
		t.Error("a zone that there is not was found")
	}
}
