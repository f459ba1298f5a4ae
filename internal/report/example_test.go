package report_test

import (
	"log"
	"os"

	"github.com/kubepki/kubepki/internal/report"
)

// Tables are for people: two spaces between columns, and no lines.
func ExampleTable() {
	err := report.Table(os.Stdout, []string{"#", "CALLER", "CALLEE"}, [][]string{
		{"6", "kube-scheduler", "kube-apiserver"},
		{"12", "kube-apiserver", "kube-apiserver"},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// #   CALLER          CALLEE
	// 6   kube-scheduler  kube-apiserver
	// 12  kube-apiserver  kube-apiserver
}
