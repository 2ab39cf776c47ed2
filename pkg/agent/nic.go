package agent

import (
	"context"
	"fmt"
	"net"

	"github.com/micropod/micropod/pkg/agent/api"
)

// OpenNIC has the guest make a network device, and returns the connection that
// carries its frames (package wire). The device is gone when that ends. What the guest
// refuses is an *api.Error. ctx bounds the call only.
func OpenNIC(ctx context.Context, vsockPath, token string, r api.NICRequest) (net.Conn, error) {
	conn, err := open(ctx, vsockPath, api.Open{Version: api.Version, Token: token, Purpose: api.PurposeNIC, NIC: &r})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = accepted(conn)
	if !stop() { // it is closed
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// accepted reads the guest's answer to an Open.
func accepted(conn net.Conn) error {
	k, b, err := api.ReadFrame(conn, nil)
	if err != nil {
		return fmt.Errorf("make a network device: %w", unexpected(err))
	}
	if k != api.KindReply {
		return fmt.Errorf("frame of kind %d before the first answer: %w", k, api.ErrFrame)
	}
	_, err = answer(b)
	return err
}

// Networks tells the guest which networks a container is in from now on.
func (c *Client) Networks(ctx context.Context, r api.NetworksRequest) error {
	return c.call(ctx, api.MethodNetworks, r, nil)
}
