package agent

import (
	"context"
	"net"

	"github.com/micropod/micropod/pkg/agent/api"
)

// OpenNIC has the guest make a network device, and returns the connection that
// carries its frames (package wire). The device is gone when that ends. What the guest
// refuses is an *api.Error. ctx bounds the call only.
func OpenNIC(ctx context.Context, vsockPath, token string, r api.NICRequest) (net.Conn, error) {
	o := api.Open{Version: api.Version, Token: token, Purpose: api.PurposeNIC, NIC: &r}
	conn, _, err := openAnswered(ctx, vsockPath, o, "make a network device")
	return conn, err
}

// Networks tells the guest which networks a container is in from now on.
func (c *Client) Networks(ctx context.Context, r api.NetworksRequest) error {
	return c.call(ctx, api.MethodNetworks, r, nil)
}
