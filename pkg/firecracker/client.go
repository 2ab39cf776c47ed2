package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// Bounds of Firecracker's HTTP layer and of what is believed from it, in bytes.
const (
	maxRequestLine  = 1024
	maxRequestBody  = 51200 // the default of --http-api-max-payload-size
	maxResponseBody = 1 << 20
	maxHeaders      = 16 << 10
)

// Client speaks Firecracker's API over its unix socket. It keeps one connection
// open and sends one request at a time, as the server handles them. Deadlines
// come from the contexts alone: the server has none, and snapshots take long.
// Safe for concurrent use.
type Client struct {
	dial func(context.Context) (net.Conn, error)
	turn chan struct{} // holds one token while a request is under way
	link *link         // nil: none; owned by the holder of turn
	// version is what Version read, nil until then.
	version atomic.Pointer[Version]
}

// NewClient returns a client of the API socket at path. It does not connect.
func NewClient(path string) *Client {
	return newClient(func(ctx context.Context) (net.Conn, error) {
		dialer := net.Dialer{}
		return dialer.DialContext(ctx, "unix", path)
	})
}

func newClient(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{dial: dial, turn: make(chan struct{}, 1)}
}

// Close closes the connection, once the request under way has ended.
func (c *Client) Close() {
	c.turn <- struct{}{}
	c.drop()
	<-c.turn
}

// Do sends r and waits for the answer. A refusal is an *Error. Values over
// Firecracker's limits, and fields newer than the release (once Version has
// been called), are refused here.
func (c *Client) Do(ctx context.Context, r Request) error {
	_, err := c.exchange(ctx, r)
	return err
}

// Version asks for the release and remembers it.
func (c *Client) Version(ctx context.Context) (Version, error) {
	body, err := get[struct {
		Version string `json:"firecracker_version"`
	}](ctx, c, "/version")
	if err != nil {
		return Version{}, err
	}
	v, err := ParseVersion(body.Version)
	if err != nil {
		return Version{}, fmt.Errorf("GET /version: %w", err)
	}
	c.version.Store(&v)
	return v, nil
}

// Instance tells what the process is doing.
func (c *Client) Instance(ctx context.Context) (InstanceInfo, error) {
	return get[InstanceInfo](ctx, c, "/")
}

// VMConfig tells how the VM is configured.
func (c *Client) VMConfig(ctx context.Context) (VMConfig, error) {
	return get[VMConfig](ctx, c, "/vm/config")
}

// MachineConfig tells vCPUs and memory.
func (c *Client) MachineConfig(ctx context.Context) (MachineConfig, error) {
	return get[MachineConfig](ctx, c, "/machine-config")
}

// Balloon tells how the balloon is configured.
func (c *Client) Balloon(ctx context.Context) (Balloon, error) {
	return get[Balloon](ctx, c, "/balloon")
}

// BalloonStats tells the guest's memory statistics. After the boot.
func (c *Client) BalloonStats(ctx context.Context) (BalloonStats, error) {
	return get[BalloonStats](ctx, c, "/balloon/statistics")
}

// BalloonHinting tells how far a hinting run is. After the boot.
func (c *Client) BalloonHinting(ctx context.Context) (BalloonHintingStatus, error) {
	return get[BalloonHintingStatus](ctx, c, "/balloon/hinting/status")
}

// MemoryHotplug tells how much memory is plugged. After the boot.
func (c *Client) MemoryHotplug(ctx context.Context) (MemoryHotplugStatus, error) {
	return get[MemoryHotplugStatus](ctx, c, "/hotplug/memory")
}

// MMDS returns the metadata, {} when there is none.
func (c *Client) MMDS(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/mmds")
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	r := Request{Method: http.MethodGet, Path: path}
	body, err := c.exchange(ctx, r)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("%s: decode answer: %w", r, err)
	}
	return out, nil
}

// exchange sends r and returns the body of a success.
func (c *Client) exchange(ctx context.Context, r Request) ([]byte, error) {
	req, err := r.build(ctx, c.version.Load())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	status, body, err := c.roundTrip(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if status < 200 || status > 299 {
		return nil, &Error{Request: r.String(), Status: status, Message: faultMessage(body)}
	}
	return body, nil
}

// build makes the HTTP request, or says why Firecracker would refuse it.
func (r Request) build(ctx context.Context, v *Version) (*http.Request, error) {
	if err := r.check(v); err != nil {
		return nil, err
	}
	var body io.Reader
	if r.Body != nil {
		data, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		if len(data) > maxRequestBody {
			return nil, fmt.Errorf("body of %d bytes is over the %d that firecracker reads", len(data), maxRequestBody)
		}
		// A reader of known length: the server cannot read chunks.
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://localhost"+r.Path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// check holds r against the limits, and against the release if v is known.
func (r Request) check(v *Version) error {
	// Routing takes the whole target as path, a query included.
	if (r.Path != "/" && strings.HasSuffix(r.Path, "/")) ||
		strings.Trim(r.Path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/") != "" ||
		len(r.Method)+len(r.Path)+len("  HTTP/1.1\r\n") > maxRequestLine {
		return fmt.Errorf("not a path of the API")
	}
	if b, ok := r.Body.(limited); ok {
		if err := b.check(); err != nil {
			return err
		}
	}
	needs := r.needs
	if b, ok := r.Body.(gated); ok {
		needs = append(needs[:len(needs):len(needs)], b.needs()...)
	}
	if v == nil {
		return nil
	}
	for _, f := range needs {
		if err := v.require(f); err != nil {
			return err
		}
	}
	return nil
}
