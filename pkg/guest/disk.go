package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// maxDisks bounds the disks over the channel. Each costs the kernel some 200 KiB.
const maxDisks = 128

// disks are those over the channel.
type disks struct {
	mu   sync.Mutex
	mods *modules
	all  map[string]*disk // by device
}

// disk is a block device whose requests the host answers, over a connection. The
// kernel does not take every kind of socket for that, so it has one end of a pair.
type disk struct {
	device string
	index  uint32
	socket *os.File      // the agent's end of the pair
	gone   chan struct{} // closed when all is undone

	mu           sync.Mutex
	disconnected bool
}

// serveDisk serves one connection of PurposeDisk: the device is there as long as
// the connection is.
func (a *agent) serveDisk(conn net.Conn, r *api.DiskRequest) {
	d, err := a.attachDisk(r)
	if err != nil {
		_ = api.WriteMessage(conn, api.KindReply, api.Reply{Error: asError(err)})
		return
	}
	defer a.dropDisk(d)
	// The kernel's first request waits in the socket until this is said.
	if err := sayDevice(conn, d.device); err != nil {
		return
	}
	d.relay(conn)
}

func sayDevice(conn net.Conn, device string) error {
	result, err := json.Marshal(api.DiskReply{Device: device})
	if err != nil {
		return err
	}
	return api.WriteMessage(conn, api.KindReply, api.Reply{Result: result})
}

func checkDisk(r *api.DiskRequest) error {
	if r == nil {
		return invalid("disk", "no disk")
	}
	if r.Size <= 0 || r.Size%api.SectorSize != 0 {
		return invalid("disk", "%d bytes are no whole sectors of %d", r.Size, api.SectorSize)
	}
	return nil
}

// attachDisk makes the device.
func (a *agent) attachDisk(r *api.DiskRequest) (*disk, error) {
	if err := checkDisk(r); err != nil {
		return nil, err
	}
	a.disks.mu.Lock() // one after the other: the module is loaded once
	defer a.disks.mu.Unlock()
	if len(a.disks.all) >= maxDisks {
		return nil, invalid("disk", "%d disks, and no more than that", maxDisks)
	}
	d, err := connectDisk(a.disks.mods, *r)
	if err != nil {
		return nil, internal("disk", err)
	}
	a.disks.all[d.device] = d
	return d, nil
}

func connectDisk(mods *modules, r api.DiskRequest) (*disk, error) {
	kernel, err := openNBD(mods)
	if err != nil {
		return nil, err
	}
	defer kernel.close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	defer unix.Close(pair[1]) // the kernel holds it on its own
	// Ours alone does not block: the kernel's end is waited on.
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	d := &disk{socket: os.NewFile(uintptr(pair[0]), "disk"), gone: make(chan struct{})}
	if d.index, err = kernel.connect(pair[1], r); err != nil {
		d.socket.Close()
		return nil, fmt.Errorf("connect disk: %w", err)
	}
	d.device = fmt.Sprintf("/dev/nbd%d", d.index)
	if err := d.checkSize(r.Size); err != nil {
		d.socket.Close()
		return nil, errors.Join(err, d.disconnect())
	}
	return d, nil
}

// checkSize does not open the device: a kernel that looks for partitions would
// ask, and nobody answers yet.
func (d *disk) checkSize(want int64) error {
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/nbd%d/size", d.index))
	if err != nil {
		return fmt.Errorf("size of disk: %w", err)
	}
	if sectors, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil || sectors != want/api.SectorSize {
		return fmt.Errorf("%s has %q sectors in place of %d", d.device, b, want/api.SectorSize)
	}
	return nil
}

// relay copies between the kernel and the host until one of them ends.
func (d *disk) relay(conn net.Conn) {
	var ways sync.WaitGroup
	ways.Go(func() {
		defer conn.Close()
		copyStream(conn, d.socket)
	})
	ways.Go(func() {
		defer d.socket.Close()
		copyStream(d.socket, conn)
	})
	ways.Wait()
}

// copyStream hides what else the two can do: each way has one buffer, and that
// is all.
func copyStream(to io.Writer, from io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, api.MaxData))
}

// dropDisk undoes attachDisk.
func (a *agent) dropDisk(d *disk) {
	d.socket.Close()
	if err := d.disconnect(); err != nil {
		a.log.printf("disconnect %s: %v", d.device, err)
	}
	a.disks.mu.Lock()
	if a.disks.all[d.device] == d { // else the device is another one's already
		delete(a.disks.all, d.device)
	}
	a.disks.mu.Unlock()
	close(d.gone)
}

// disconnect takes the device away, once: its index may be another one's later.
func (d *disk) disconnect() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disconnected {
		return nil
	}
	kernel, err := openGenetlink("nbd")
	if err != nil {
		return err
	}
	defer kernel.close()
	err = nbd{kernel}.disconnect(d.index)
	d.disconnected = err == nil
	return err
}

// detach ends a disk in order.
func (a *agent) detach(r api.DetachRequest) error {
	a.disks.mu.Lock()
	d := a.disks.all[r.Device]
	a.disks.mu.Unlock()
	if d == nil {
		return &api.Error{Code: api.CodeNotFound, Phase: "detach", Message: fmt.Sprintf("no disk %q", api.Clean(r.Device, 64))}
	}
	if err := flushDevice(d.device); err != nil {
		return err
	}
	if err := d.disconnect(); err != nil {
		return internal("detach", err)
	}
	<-d.gone
	return nil
}

// flushDevice writes what the kernel holds for a device that nobody uses.
func flushDevice(device string) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return &api.Error{Code: api.CodeConflict, Phase: "detach", Message: device + " is in use"}
	}
	if err != nil {
		return internal("detach", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return internal("detach", fmt.Errorf("flush %s: %w", device, err))
	}
	return nil
}
