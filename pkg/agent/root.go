package agent

import (
	"context"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Root makes the root file system of one more container, which Start starts with
// OwnRoot. It ends with Release, and with the connection.
func (c *Client) Root(ctx context.Context, r api.RootRequest) (api.SetupReply, error) {
	var reply api.SetupReply
	err := c.call(ctx, api.MethodRoot, r, &reply)
	reply.Phases = api.CleanPhases(reply.Phases)
	return reply, err
}

// Release ends a root file system: when it returns without an error, all that was
// written is on its disk, and nothing uses it.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.call(ctx, api.MethodRelease, api.ReleaseRequest{ID: id}, nil)
}

// Done is closed when the connection has ended. What Exits has still to deliver may
// come later.
func (c *Client) Done() <-chan struct{} { return c.done }
