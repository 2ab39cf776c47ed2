//go:build embedagent

package main

import (
	"embed"
	"fmt"
	"io"
	"io/fs"

	"github.com/micropod/micropod/pkg/manager"
)

// agentKind says in `version` where the guest agent comes from.
const agentKind = "embedded"

//go:embed embedded/micropod-agent
var embedded embed.FS

// runAsAgent is for builds without an embedded agent: this one is never started
// in a guest.
func runAsAgent([]string) {}

// agentFiles is the agent that `make build` put into this binary. It is read only
// where an initramfs is made.
func agentFiles() ([]manager.AgentFile, error) {
	const name = "embedded/micropod-agent"
	info, err := fs.Stat(embedded, name)
	if err != nil {
		return nil, fmt.Errorf("find the embedded guest agent: %w", err)
	}
	self, err := statFile("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []manager.AgentFile{{
		Name: agentName, Mode: 0o755, Size: info.Size(), Stamp: stamp(self),
		Open: func() (io.ReadCloser, error) { return embedded.Open(name) },
	}}, nil
}
