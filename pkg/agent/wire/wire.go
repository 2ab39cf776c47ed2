// Package wire carries the frames of a network device over a stream connection: a
// device that a guest gets while it runs, since no VMM here can plug one in. It runs
// on both sides: in the guest between a TAP device and the connection, on the host
// between the connection and the network's end.
//
// What it is not: a filter or a switch. Whose frames may go where is decided by who
// has the other end, as for a device of the VMM.
//
// Lifecycle: Carry works until one of both ends is gone, or is closed, and closes
// both. What a peer sends is hostile: see api.ReadEthernet.
package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// End is a device, or what stands for one: each read of File is one frame, each
// write one. Open makes a File that Carry can use.
type End struct {
	File *os.File
	// Bare says that there is no virtio_net header before the frames of File.
	Bare bool
}

// Open opens a device once more, for Carry, which can be stopped only where the file
// is watched by Go's poller. A TAP device is not before it has its name.
func Open(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	err = raw.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, derr); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// What a TAP device hands over without computing it: checksums, and segments of TCP
// (TUN_F_… of include/uapi/linux/if_tun.h).
const (
	offloadChecksums = 1 << 0
	offloadTCP4      = 1 << 1
	offloadTCP6      = 1 << 2
)

// Offload has a TAP device hand over frames whose checksums are left to the other
// side, and with segments frames that are larger than its MTU.
func Offload(tap *os.File, segments bool) error {
	features := offloadChecksums
	if segments {
		features |= offloadTCP4 | offloadTCP6
	}
	raw, err := tap.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) { ierr = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, features) })
	if err := errors.Join(err, ierr); err != nil {
		return fmt.Errorf("set the offloads of %s: %w", tap.Name(), err)
	}
	return nil
}

// Carry copies frames both ways until one end is gone, closes both, and says why it
// ended.
func Carry(conn io.ReadWriteCloser, e End) error {
	done := make(chan error, 2)
	go func() { done <- e.send(conn) }()
	go func() { done <- e.receive(conn) }()
	err := <-done
	conn.Close()
	e.File.Close()
	<-done
	return err
}

// batch is how much of a device's frames goes into one write, in bytes: one of the
// largest, or many small ones.
const batch = 128 << 10

// room is what one more frame may take of a batch.
const room = api.HeaderSize + api.MaxEthernet

// send takes frames of the device to the connection, all those that are there in one
// write. Who does not read holds it up, and the device loses frames then, as one does
// whose wire is slow.
func (e End) send(conn io.Writer) error {
	buf := make([]byte, batch)
	raw, err := e.File.SyscallConn()
	if err != nil {
		return err
	}
	for {
		n, rerr := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, rerr = e.gather(int(fd), buf)
			return n > 0 || rerr != nil
		})
		if err := errors.Join(err, rerr); err != nil {
			return fmt.Errorf("read from the network device: %w", err)
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return fmt.Errorf("send frames: %w", err)
		}
	}
}

// gather reads the frames that are there, as many as have room in buf.
func (e End) gather(fd int, buf []byte) (n int, err error) {
	skip := api.HeaderSize
	if e.Bare {
		skip += api.EthernetHeader
	}
	for len(buf)-n >= room {
		k, err := unix.Read(fd, buf[n+skip:n+room])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case err != nil:
			if n > 0 {
				return n, nil // the next read says it again
			}
			return 0, err
		}
		clear(buf[n+api.HeaderSize : n+skip]) // nothing is left to be done
		if api.PutEthernetHeader(buf[n:n+skip+k]) == nil {
			n += skip + k
		}
	}
	return n, nil
}

// receive takes frames of the connection to the device. One that the device refuses
// is lost.
func (e End) receive(conn io.Reader) error {
	r := bufio.NewReaderSize(conn, batch)
	buf := make([]byte, api.MaxEthernet)
	for {
		frame, err := api.ReadEthernet(r, buf)
		if err != nil {
			return fmt.Errorf("receive frames: %w", err)
		}
		if e.Bare {
			if frame[1] != 0 { // gso_type: several segments, which nobody here takes apart
				continue
			}
			frame = frame[api.EthernetHeader:]
		}
		_, err = e.File.Write(frame)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("write to the network device: %w", err)
		}
	}
}
