package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/portmux"
)

// serveVsock is a vsock socket with the guest's end in this process.
func serveVsock(t *testing.T) (*vsock, *portmux.Session) {
	t.Helper()
	l := &launch{}
	conn, err := l.channel()
	if err != nil {
		t.Fatal(err)
	}
	defer l.closeChildren()
	path := filepath.Join(t.TempDir(), "v")
	v, err := openVsock(path, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	end, err := net.FileConn(l.children[0])
	if err != nil {
		t.Fatal(err)
	}
	g, err := portmux.Guest(end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return v, g
}

func connect(t *testing.T, v *vsock, request string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", v.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func TestVsockRequestWithData(t *testing.T) {
	v, g := serveVsock(t)
	l, err := g.Listen(5)
	if err != nil {
		t.Fatal(err)
	}
	// Data in the same write as the request is not lost, and the word's case
	// does not matter.
	c := connect(t, v, "connect 5\nearly data")
	guest, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if _, err := io.ReadFull(guest, buf); err != nil || string(buf) != "early data" {
		t.Errorf("the guest reads %q, %v", buf, err)
	}
	// The host sends what nobody will read: it must see the guest's bytes and
	// an end, no reset.
	started := make(chan struct{})
	go func() {
		c.Write(make([]byte, 1<<20))
		close(started)
		c.Write(make([]byte, 8<<20))
	}()
	if _, err := io.ReadFull(guest, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	<-started
	io.WriteString(guest, "bye")
	guest.Close()
	for open := 1; open > 0; time.Sleep(time.Millisecond) { // read after the server's close
		v.mu.Lock()
		open = len(v.conns)
		v.mu.Unlock()
	}
	r := bufio.NewReader(c)
	if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "OK ") {
		t.Errorf("answer %q", line)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "bye" {
		t.Errorf("the host reads %q, %v", rest, err)
	}
}

func TestVsockPathIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := listenPrivate(path); err == nil {
		l.Close()
		t.Error("a file gives way to a socket")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestVsockConnectionsAreBounded(t *testing.T) {
	v, _ := serveVsock(t)
	for range maxConnections {
		connect(t, v, "") // asks for nothing yet
	}
	c := connect(t, v, "")
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one connection more: %v", err)
	}
}

func TestVsockCloseEndsAll(t *testing.T) {
	v, g := serveVsock(t)
	l, err := g.Listen(5)
	if err != nil {
		t.Fatal(err)
	}
	open := connect(t, v, "CONNECT 5\n")
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	idle := connect(t, v, "CONN")
	v.close()
	for _, c := range []net.Conn{open, idle} {
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(v.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket file: %v", err)
	}
}

func FuzzConnect(f *testing.F) {
	for _, s := range []string{"CONNECT 1\n", "connect 4294967295\nx", "CONNECT 4294967296\n", "CONNECT +1\n", "CONNECT  1\n", "\n", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		_, err := readConnect(r)
		rest, _ := io.ReadAll(r)
		if used := len(b) - len(rest); used > maxConnectLine {
			t.Fatalf("%d bytes read", used)
		}
		if err == nil && b[len(b)-len(rest)-1] != '\n' {
			t.Fatal("read beyond the line")
		}
	})
}

func FuzzQMP(f *testing.F) {
	f.Add([]byte(`{"return": {"status": "running", "singlestep": false, "running": true}}`))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`))
	f.Add([]byte(`{"error": {"class": "GenericError", "desc": "no"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseQMP(b)
		if err == nil {
			isRunning(m.Return)
		}
	})
}
