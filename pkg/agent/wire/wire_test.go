package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// pair are two ends of a link: each write of one is a read of the other.
func pair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// connected are both ends of a stream connection.
func connected(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func carry(conn net.Conn, e End) chan error {
	done := make(chan error, 1)
	go func() { done <- Carry(conn, e) }()
	return done
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return nil
	}
}

// frame is one without a header.
func frame(size int, fill byte) []byte { return bytes.Repeat([]byte{fill}, size) }

// TestCarry takes frames of all sizes from one end to the other, both ways, many of
// them at once. One end has a virtio_net header, the other has not.
func TestCarry(t *testing.T) {
	host, hostDevice := pair(t)
	guest, guestDevice := pair(t)
	a, b := connected(t)
	first, second := carry(a, End{File: hostDevice, Bare: true}), carry(b, End{File: guestDevice})
	sizes := []int{14, 60, 1514, 9014, api.MaxEthernet - api.EthernetHeader}
	for range 40 {
		sizes = append(sizes, 64)
	}
	header := make([]byte, api.EthernetHeader)
	go func() {
		for i, n := range sizes {
			host.Write(frame(n, byte(i)))
			guest.Write(append(bytes.Clone(header), frame(n, byte(i))...))
		}
	}()
	buf := make([]byte, api.MaxEthernet+1)
	for i, n := range sizes {
		k, err := guest.Read(buf)
		if err != nil || !bytes.Equal(buf[:k], append(bytes.Clone(header), frame(n, byte(i))...)) {
			t.Fatalf("frame %d for the guest: %d bytes of %d, %v", i, k, n, err)
		}
		if k, err = host.Read(buf); err != nil || !bytes.Equal(buf[:k], frame(n, byte(i))) {
			t.Fatalf("frame %d of the guest: %d bytes of %d, %v", i, k, n, err)
		}
	}
	b.Close() // the guest hangs up
	ended(t, second)
	ended(t, first)
	if _, err := hostDevice.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the device is open still: %v", err)
	}
}

// TestHostile: a frame that is none ends it, and one that nobody here can take apart
// is lost.
func TestHostile(t *testing.T) {
	host, device := pair(t)
	a, guest := connected(t)
	done := carry(a, End{File: device, Bare: true})
	send := func(payload []byte) {
		t.Helper()
		if err := api.WriteFrame(guest, api.KindEthernet, payload); err != nil {
			t.Fatal(err)
		}
	}
	segments := make([]byte, 100)
	segments[1] = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	send(segments)
	send(append(make([]byte, api.EthernetHeader), frame(64, 7)...))
	buf := make([]byte, 1<<17)
	if k, err := host.Read(buf); err != nil || !bytes.Equal(buf[:k], frame(64, 7)) {
		t.Fatalf("%d bytes, %v", k, err)
	}
	send(make([]byte, 5))
	if err := ended(t, done); !errors.Is(err, api.ErrFrame) {
		t.Errorf("a frame without an address: %v", err)
	}
	if _, err := io.ReadAll(guest); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection is there still: %v", err)
	}
}

// TestLostDevice: a device that nobody takes frames of any more does not hold it up.
func TestLostDevice(t *testing.T) {
	host, device := pair(t)
	a, guest := connected(t)
	done := carry(a, End{File: device})
	host.Close()
	for range 4 {
		if err := api.WriteFrame(guest, api.KindEthernet, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	guest.Close()
	if err := ended(t, done); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestOpen: the second of a device's files works with the first closed, and its end is
// not held up by a read.
func TestOpen(t *testing.T) {
	host, device := pair(t)
	again, err := Open(device)
	if err != nil {
		t.Fatal(err)
	}
	device.Close()
	a, guest := connected(t)
	done := carry(a, End{File: again})
	if _, err := host.Write(make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if b, err := api.ReadEthernet(guest, make([]byte, api.MaxEthernet)); err != nil || len(b) != 60 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	a.Close()
	ended(t, done)
}
