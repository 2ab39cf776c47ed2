package bridge

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// serve answers everybody with the address that he has for the server, by TCP and
// by UDP.
func serve(s *space, at string) { serveAs(s, at, "") }

// serveAs says first who it is that answers.
func serveAs(s *space, at, name string) {
	s.t.Helper()
	s.do(func() error {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { l.Close(); u.Close() })
		go answerStreams(l, name)
		go answerPackets(u, name)
		return nil
	})
}

func answerStreams(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, name+who(c.RemoteAddr()))
		c.Close()
	}
}

func answerPackets(u net.PacketConn, name string) {
	buf := make([]byte, 100)
	for {
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = u.WriteTo([]byte(name+who(from)), from)
	}
}

func who(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().WithZone("").String()
}

// patience is for an answer that is not to come; one that is to come is asked for
// again and again, for as long as a busy machine may need.
const (
	patience = 400 * time.Millisecond
	limit    = time.Minute
)

// ask is the address that the server sees; "" when there is no answer.
func (s *space) ask(network, to string) string {
	var answer string
	_ = s.try(func() error {
		c, err := net.DialTimeout(network, to, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "udp" {
			_, _ = c.Write([]byte("?"))
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 100)
		n, err := c.Read(b)
		answer = string(b[:n])
		return err
	})
	return answer
}

// asks is ask, with patience if an answer is wanted.
func (s *space) asks(network, to, want string) (got string) {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if got = s.ask(network, to); got == want || want == "" || time.Now().After(end) {
			return got
		}
	}
}

// reach is who asks whom, by TCP and UDP, and whom the other then sees: "" is
// nobody.
type reach struct {
	name string
	from *space
	to   string
	want string
}

// check asks all at once: most of the time is waiting for what does not come.
func check(t *testing.T, all ...reach) {
	t.Helper()
	var group sync.WaitGroup
	for _, c := range all {
		for _, network := range []string{"tcp", "udp"} {
			group.Go(func() {
				if got := c.from.asks(network, c.to, c.want); got != c.want {
					t.Errorf("%s: %s %s: the server saw %q, want %q", c.name, network, c.to, got, c.want)
				}
			})
		}
	}
	group.Wait()
}
