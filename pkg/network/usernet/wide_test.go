package usernet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// The scale of a window is told once, by who has the buffer of every connection then.
func TestWideWindow(t *testing.T) {
	const most = 65535
	if got := most << tcp.FindWndScale(bufferSize); got < wideBuffer/2-most {
		t.Errorf("the window of %d bytes cannot grow beyond %d", bufferSize, got)
	}
}

// The buffer is what the kernel says, twice what is asked for: net.core.rmem_max is
// 212992 by default, and only root may have more.
func TestRoomOfBuffer(t *testing.T) {
	for buffer, want := range map[int]int64{0: 0, 2 * 212992: 0, 2 << 20: 2, 8 << 20: wideStreams, 64 << 20: wideStreams} {
		if got := roomFor(buffer); got != want {
			t.Errorf("in %d bytes: %d, want %d", buffer, got, want)
		}
	}
}

func TestRoomOfLink(t *testing.T) {
	pair, _ := link(t)
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	for _, f := range []*os.File{pair, pipe} { // lose nothing
		if got, err := roomOf(f); got != wideStreams || err != nil {
			t.Errorf("%d, %v, want %d", got, err, wideStreams)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("packet sockets need root")
	}
	for buffer, want := range map[int]int64{212992: 0, 4 << 20: wideStreams} {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		tap := os.NewFile(uintptr(fd), "tap")
		defer tap.Close()
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
			t.Fatal(err)
		}
		if got, err := roomOf(tap); got != want || err != nil {
			t.Errorf("with %d bytes: %d, %v, want %d", buffer, got, err, want)
		}
		n, err := New(with(Config{}))
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Attach(tap); err != nil {
			t.Fatal(err)
		}
		taken(t, n, wideStreams-want)
	}
}

// sink serves TCP connections on loopback: it reads, and waits for goOn before it
// reads the end.
func sink(t *testing.T, goOn <-chan struct{}) (port uint16, total <-chan int64) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sums := make(chan int64, 1)
	serveAll(t, l, func(c net.Conn) {
		defer c.Close()
		n, _ := io.CopyN(io.Discard, c, 2*wideAfter)
		<-goOn
		rest, _ := io.Copy(io.Discard, c)
		sums <- n + rest
	})
	return uint16(l.Addr().(*net.TCPAddr).Port), sums
}

// send sends what makes a connection wide, and one byte more.
func send(t *testing.T, c *gonet.TCPConn) {
	t.Helper()
	for _, n := range []int{2 * wideAfter, 1} {
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// taken waits until so many connections are wide.
func taken(t *testing.T, n *Network, want int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		free := wideStreams - want
		if n.wide.TryAcquire(free) {
			more := n.wide.TryAcquire(1)
			if more {
				n.wide.Release(1)
			}
			n.wide.Release(free)
			if !more {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("not %d wide connections", want)
		}
	}
}

func TestWideConnection(t *testing.T) {
	n, guest := network(t, Config{})
	goOn := make(chan struct{})
	port, total := sink(t, goOn)
	c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	taken(t, n, 0)
	send(t, c)
	taken(t, n, 1)
	close(goOn)
	if got := <-total; got != 2*wideAfter+1 {
		t.Errorf("the server has read %d bytes, want %d", got, 2*wideAfter+1)
	}
	c.Close()
	taken(t, n, 0)
}

// Beyond the limit a connection is as any other.
func TestLimitOfWideConnections(t *testing.T) {
	n, guest := network(t, Config{})
	n.wide.TryAcquire(wideStreams)
	goOn := make(chan struct{})
	close(goOn)
	port, total := sink(t, goOn)
	c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, c)
	if got := <-total; got != 2*wideAfter+1 {
		t.Errorf("the server has read %d bytes, want %d", got, 2*wideAfter+1)
	}
	taken(t, n, wideStreams)
}
