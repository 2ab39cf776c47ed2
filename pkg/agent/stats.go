package agent

import (
	"context"
	"fmt"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Stats asks what a container uses. The numbers are those of the guest: good to
// be shown, and within bounds.
func (c *Client) Stats(ctx context.Context, containerID string) (api.StatsReply, error) {
	var reply api.StatsReply
	if err := c.call(ctx, api.MethodStats, api.StatsRequest{ID: containerID}, &reply); err != nil {
		return api.StatsReply{}, err
	}
	if err := reply.Check(); err != nil {
		return api.StatsReply{}, fmt.Errorf("%s: %w", api.MethodStats, err)
	}
	return reply, nil
}
