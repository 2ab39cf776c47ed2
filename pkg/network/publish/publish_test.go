package publish

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	anyPort  = netip.AddrPortFrom(loopback, 0)
)

// serve publishes ports of a guest that is the host's own loopback.
func serve(t *testing.T, l Limits, ports ...Port) *Server {
	t.Helper()
	s, err := Listen(ports, l, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Serve(Direct(loopback)); err != nil {
		t.Fatal(err)
	}
	return s
}

// guest serves TCP: handle has each connection.
func guest(t *testing.T, handle func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// echo answers with what came, after its end.
func echo(c *net.TCPConn) {
	b, _ := io.ReadAll(c)
	c.Write(b)
	c.Close()
}

func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.Ports()[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	return patient(t, c)
}

// firstByte is what becomes of a client: a reset may come before the client
// knows that it was connected.
func firstByte(t *testing.T, s *Server) error {
	t.Helper()
	c, err := net.Dial("tcp", s.Ports()[0].Host.String())
	if err == nil {
		_, err = patient(t, c).Read(make([]byte, 1))
	}
	return err
}

func patient(t *testing.T, c net.Conn) *net.TCPConn {
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

func TestHalfClose(t *testing.T) {
	s := serve(t, Limits{Streams: 1}, Port{Proto: "tcp", Host: anyPort, Guest: guest(t, echo)})
	c := dial(t, s)
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestResets(t *testing.T) {
	seen := make(chan error, 1)
	abort := func(c *net.TCPConn) {
		c.SetLinger(0)
		c.Close()
	}
	t.Run("of the guest", func(t *testing.T) {
		s := serve(t, Limits{Streams: 1}, Port{Proto: "tcp", Host: anyPort, Guest: guest(t, abort)})
		if err := firstByte(t, s); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client saw %v", err)
		}
	})
	t.Run("of the client", func(t *testing.T) {
		port := guest(t, func(c *net.TCPConn) {
			c.Write([]byte("!"))
			_, err := io.ReadAll(c)
			seen <- err
		})
		c := dial(t, serve(t, Limits{Streams: 1}, Port{Proto: "tcp", Host: anyPort, Guest: port}))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		abort(c)
		if err := <-seen; !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the guest saw %v", err)
		}
	})
	t.Run("of nobody's port", func(t *testing.T) {
		s := serve(t, Limits{Streams: 1}, Port{Proto: "tcp", Host: anyPort, Guest: 1})
		if err := firstByte(t, s); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client saw %v", err)
		}
	})
}

// A client that comes before the guest is there waits for it.
func TestClientWaits(t *testing.T) {
	s, err := Listen([]Port{{Proto: "tcp", Host: anyPort, Guest: guest(t, echo)}}, Limits{Streams: 1}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := dial(t, s)
	io.WriteString(c, "early")
	c.CloseWrite()
	if err := s.Serve(Direct(loopback)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "early" {
		t.Errorf("got %q, %v", b, err)
	}
	if err := s.Serve(Direct(loopback)); err == nil {
		t.Error("served twice")
	}
}

func TestLimitOfStreams(t *testing.T) {
	held := make(chan *net.TCPConn, 2)
	s := serve(t, Limits{Streams: 1}, Port{Proto: "tcp", Host: anyPort, Guest: guest(t, func(c *net.TCPConn) { held <- c; c.Write([]byte("!")) })})
	first := dial(t, s)
	server := <-held
	if err := firstByte(t, s); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("one more than the limit: %v", err)
	}
	first.Close()
	server.Close()
	for range 6000 { // the place is free some moments after both ends are
		if err := firstByte(t, s); !errors.Is(err, unix.ECONNRESET) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the place of a connection that is over is not free")
}

// Nothing waits for a client that does nothing.
func TestCloseWithClients(t *testing.T) {
	s := serve(t, Limits{Streams: 10, Flows: 10}, Port{Proto: "tcp", Host: anyPort, Guest: guest(t, echo)}, Port{Proto: "udp", Host: anyPort, Guest: 9})
	c := dial(t, s)
	io.WriteString(c, "x")
	u, err := net.Dial("udp", s.Ports()[1].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write([]byte("x"))
	s.Close()
	s.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client saw %v", err)
	}
}

// A port of every address is one of IPv4 where there is no more.
func TestNoIPv6(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	ports := make(chan []Port, 1)
	go func() {
		defer close(ports)
		runtime.LockOSThread() // for ever: nobody else may have the thread after this
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		var list []Port
		for _, proto := range []string{"tcp", "udp"} {
			list = append(list, Port{Proto: proto, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), 0), Any: true, Guest: 1})
		}
		s, err := Listen(list, Limits{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Error(err)
			return
		}
		ports <- s.Ports()
		s.Close()
	}()
	for _, p := range <-ports { // loopback is down there, and has no address
		if p.Any || p.Host.Port() == 0 {
			t.Errorf("published %+v", p)
		}
	}
}

// counter counts lines of a log.
type counter struct{ lines chan string }

func (c counter) Write(b []byte) (int, error) {
	c.lines <- string(b)
	return len(b), nil
}

// Out of descriptors, the server says so once and serves those who wait when
// there are some again.
func TestOutOfDescriptors(t *testing.T) {
	log := counter{make(chan string, 100)}
	s, err := Listen([]Port{{Proto: "tcp", Host: anyPort, Guest: guest(t, echo)}}, Limits{Streams: 1}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := dial(t, s)
	c.Write([]byte("x"))
	c.CloseWrite()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	restore := func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) }
	defer restore()
	if err := s.Serve(Direct(loopback)); err != nil {
		t.Fatal(err)
	}
	if line := <-log.lines; !strings.Contains(line, "too many open files") {
		t.Errorf("log: %s", line)
	}
	time.Sleep(200 * time.Millisecond) // some more tries
	restore()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("after that: %v", err)
	}
	if n := len(log.lines); n > 0 {
		t.Errorf("%d more lines, first %s", n, <-log.lines)
	}
}
