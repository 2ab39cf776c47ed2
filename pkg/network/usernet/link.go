package usernet

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxFrame is what a guest's NIC can send at most, with its header.
const maxFrame = 65536 + header.EthernetMinimumSize

// wire moves frames between a link and the stack.
type wire struct {
	file   *os.File
	ep     *outlet
	admits func(frame []byte) bool
}

// duplicate opens the link once more, for Go's poller.
func duplicate(f *os.File) (*os.File, error) {
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

// receive hands the guest's frames to the stack, until there is an error: at the
// latest that the link is closed.
func (w *wire) receive() error {
	buf := make([]byte, maxFrame)
	for {
		n, err := w.read(buf)
		if err != nil {
			return fmt.Errorf("read from the guest's link: %w", err)
		}
		w.deliver(buf[:n])
	}
}

// deliver hands one frame to the stack, which copies it.
func (w *wire) deliver(frame []byte) {
	if !w.admits(frame) {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	// The protocol is in the frame: the layer above the channel looks there.
	w.ep.InjectInbound(0, pkt)
	pkt.DecRef()
}

// read reads one frame. An empty one is no end, as it would be for File.Read.
func (w *wire) read(buf []byte) (n int, err error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), buf)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// send hands the stack's frames to the guest, until ctx ends. It waits for a
// guest that is slow; a frame that the link refuses is lost.
func (w *wire) send(ctx context.Context) {
	for {
		pkt := w.ep.next(ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		pkt.DecRef()
		_, err := w.file.Write(view.AsSlice())
		view.Release()
		w.ep.took()
		if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}
