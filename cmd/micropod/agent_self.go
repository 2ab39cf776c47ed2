//go:build !embedagent

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/pkg/guest"
	"github.com/micropod/micropod/pkg/manager"
)

// agentKind says in `version` where the guest agent comes from.
const agentKind = "this program (built without an embedded one)"

// runAsAgent never returns in a guest, where this program is PID 1 or a
// container's first stage.
func runAsAgent(args []string) {
	if guest.IsAgent(args) {
		os.Exit(guest.Main(args))
	}
}

// agentFiles finds the guest agent of a plain `go build`: the file named by
// MICROPOD_AGENT, then micropod-agent beside this program, then this program.
func agentFiles() ([]manager.AgentFile, error) {
	if path := os.Getenv("MICROPOD_AGENT"); path != "" {
		return agentWithLibraries(path)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the path of this program: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "micropod-agent")
	if _, err := os.Stat(beside); err == nil {
		return agentWithLibraries(beside)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find the guest agent: %w", err)
	}
	return agentWithLibraries(self)
}
