package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/nbd"
)

// Disk is a file of the host that a guest has as a disk. Safe for concurrent use.
type Disk struct {
	device           string
	vsockPath, token string
	conn             net.Conn
	done             chan struct{}
	err              error // why it ended; after done
}

// OpenDisk gives a guest that is set up a file as one more disk, and serves it
// until Detach or Close, or until the guest lets go of it. The file stays the
// caller's, and must be open until Done. Its size is a multiple of
// api.SectorSize, and must not change. A guest that cannot have it, for want of
// a kernel's option say, answers with an *api.Error. ctx is for the opening only.
func OpenDisk(ctx context.Context, vsockPath, token string, f *os.File, readOnly bool) (*Disk, error) {
	size, err := f.Seek(0, io.SeekEnd) // block devices have no other size
	if err != nil {
		return nil, fmt.Errorf("size of disk: %w", err)
	}
	if size == 0 || size%api.SectorSize != 0 {
		return nil, fmt.Errorf("disk %s: %d bytes are no whole sectors of %d", f.Name(), size, api.SectorSize)
	}
	conn, reply, err := openAnswered(ctx, vsockPath, api.Open{
		Version: api.Version, Token: token, Purpose: api.PurposeDisk,
		Disk: &api.DiskRequest{Size: size, ReadOnly: readOnly},
	}, "make a disk")
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", f.Name(), err)
	}
	device, err := diskDevice(reply)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open disk %s: %w", f.Name(), err)
	}
	d := &Disk{device: device, vsockPath: vsockPath, token: token, conn: conn, done: make(chan struct{})}
	go func() {
		d.err = nbd.Serve(context.Background(), conn, nbd.Export{File: f, Size: size, ReadOnly: readOnly})
		close(d.done)
	}()
	return d, nil
}

// diskDevice is the device that the guest says it has made.
func diskDevice(reply api.Reply) (string, error) {
	var r api.DiskReply
	if err := api.Decode(reply.Result, &r); err != nil {
		return "", err
	}
	return r.Device, r.Check()
}

// Device is the disk's path in the guest, /dev/nbd and a number.
func (d *Disk) Device() string { return d.device }

// Done is closed when the disk is served no longer.
func (d *Disk) Done() <-chan struct{} { return d.done }

// Err is why it is served no longer, after Done: nil after an orderly end.
func (d *Disk) Err() error {
	<-d.done
	return d.err
}

// Detach ends the disk in order: the guest writes what it holds, and all of it is
// on the host's disk when Detach returns nil. While it is in use there, mounted
// say, the answer is an *api.Error of CodeConflict, and the disk stays.
func (d *Disk) Detach(ctx context.Context) error {
	c, err := Dial(ctx, d.vsockPath, d.token)
	if err != nil {
		return fmt.Errorf("detach %s: %w", d.device, err)
	}
	defer c.Close()
	if err := c.call(ctx, api.MethodDetach, api.DetachRequest{Device: d.device}, nil); err != nil {
		return fmt.Errorf("detach %s: %w", d.device, err)
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("detach %s: %w", d.device, context.Cause(ctx))
	}
}

// Close ends the disk at once: what the guest has not written is lost, and what
// it asks of the disk fails from now on. Idempotent.
func (d *Disk) Close() error {
	err := d.conn.Close()
	<-d.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
