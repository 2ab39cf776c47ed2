package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// tcpChannel has a host on the loopback in place of one on the other side of a VM.
type tcpChannel struct {
	channel
	host string
}

func (c tcpChannel) dialHost(ctx context.Context, _ uint32) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", c.host)
}

// TestCallsAgain: a guest calls its host again where the connection was reset
// before the host had asked for anything, as the guest of a template finds it, and
// neither where it was ended in good order nor once it is set up.
func TestCallsAgain(t *testing.T) {
	for _, test := range []struct {
		name  string
		state setupState
		reset []bool // call for call
		want  error
	}{
		{"of a template", notSetUp, []bool{true, true, false}, io.EOF},
		{"ended", notSetUp, []bool{false}, io.EOF},
		{"set up", setUp, []bool{true}, unix.ECONNRESET},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- answerCalls(l, test.reset) }()
		a := newAgent(&console{w: io.Discard}, nil)
		a.state = test.state
		if err := a.callHost(tcpChannel{host: l.Addr().String()}, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		a.mu.Lock()
		a.state = setUp // ends what keeps it awake
		a.mu.Unlock()
	}
}

// answerCalls takes one call after the other, and says whether there were as many.
func answerCalls(l net.Listener, reset []bool) error {
	defer l.Close() // no more than these
	for _, r := range reset {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		var h api.Hello
		if err := api.ReadMessage(conn, api.KindHello, &h); err != nil {
			return err
		}
		if r {
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
		}
		conn.Close()
	}
	return nil
}
