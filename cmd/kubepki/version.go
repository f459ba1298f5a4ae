package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/report"
)

// version is set by the linker (-X main.version=v1.2.3) for releases.
var version = ""

func newVersionCommand(s streams) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of kubepki",
		Example: `  # Which kubepki is this?
  kubepki version

  # As a kubectl plugin
  kubectl pki version

  # In a script
  test "$(kubepki version | cut -d' ' -f2)" = v0.1.0`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch output {
			case "":
				_, err := fmt.Fprintf(s.out, "kubepki %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			case "json", "yaml":
				return report.Document(s.out, output, map[string]string{
					"apiVersion": report.APIVersion, "kind": "Version", "version": versionText(),
					"goVersion": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			return usagef("--output: unknown format %q: use json or yaml", output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "output: json or yaml (default one line)")
	return c
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
