package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version of MicroPod.
const version = "0.1.0"

type versionInfo struct {
	Version, GitCommit, BuildTime, GoVersion, Os, Arch, Agent string
}

func newVersionCommand(a *app) *cobra.Command {
	var format string
	c := newVerb("version [OPTIONS]", "Show the version", arguments(0, 0), nil)
	c.Flags().StringVarP(&format, "format", "f", "", `Format output: "json" or a Go template`)
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(*cobra.Command, []string) error {
		v := buildVersion()
		text := fmt.Sprintf("MicroPod:\n Version:     %s\n Git commit:  %s\n Built:       %s\n Go version:  %s\n OS/Arch:     %s/%s\n Guest agent: %s\n",
			v.Version, v.GitCommit, v.BuildTime, v.GoVersion, v.Os, v.Arch, v.Agent)
		return writeValue(a.out, format, v, text)
	}
	return c
}

// buildVersion reads what the go command wrote into the binary.
func buildVersion() versionInfo {
	v := versionInfo{
		Version: version, GitCommit: "unknown", BuildTime: "unknown", GoVersion: runtime.Version(),
		Os: runtime.GOOS, Arch: runtime.GOARCH, Agent: agentKind,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value
		case "vcs.time":
			v.BuildTime = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				v.GitCommit += " (modified)"
			}
		}
	}
	return v
}
