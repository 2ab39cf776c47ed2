//go:build embedagent

package main

import (
	"bytes"
	"embed"
	"fmt"
	"io"

	"github.com/micropod/micropod/pkg/manager"
)

// agentKind says in `version` where the guest agent comes from.
const agentKind = "embedded"

//go:embed embedded/micropod-agent
var embedded embed.FS

// runAsAgent is for builds without an embedded agent: this one is never started
// in a guest.
func runAsAgent([]string) {}

// agentFiles is the agent that `make build` put into this binary.
func agentFiles() ([]manager.AgentFile, error) {
	b, err := embedded.ReadFile("embedded/micropod-agent")
	if err != nil {
		return nil, fmt.Errorf("read the embedded guest agent: %w", err)
	}
	self, err := statFile("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []manager.AgentFile{{
		Name: agentName, Mode: 0o755, Size: int64(len(b)), Stamp: stamp(self),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}}, nil
}
