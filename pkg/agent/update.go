package agent

import (
	"context"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Update changes the limits of a container that runs.
func (c *Client) Update(ctx context.Context, r api.UpdateRequest) error {
	return c.call(ctx, api.MethodUpdate, r, nil)
}
