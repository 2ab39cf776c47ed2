package vmmtest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

const (
	bulk     = 8 << 20 // far more than any buffer on the way
	parallel = 20
)

// testConnections: one VM, the vsock socket in every way.
func (s *suite) testConnections(t *testing.T) {
	c := s.config(t, wire.ModeServe)
	// A killed VMM leaves its socket file.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.VsockPath, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	v := s.boot(t, c)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *vm)
	}{
		{"socket is private", testSocketMode},
		{"guest sends", testSource},
		{"host sends", testSink},
		{"both send", testEcho},
		{"many at once", testParallel},
		{"host leaves early", testEarlyClose},
		{"nobody listens in the guest", testGuestRefuses},
		{"nobody listens on the host", testHostRefuses},
		{"bad requests", testBadRequests},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, v) })
	}
	if got := v.do(t, "cpus"); got != "0" {
		t.Errorf("afterwards the guest answers %q", got)
	}
	v.Kill()
	if _, err := os.Lstat(c.VsockPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket file afterwards: %v", err)
	}
	// The host's end of the ready connection ends with the VM.
	if _, err := io.Copy(io.Discard, v.ready); err != nil && !isReset(err) {
		t.Errorf("ready connection: %v", err)
	}
}

func testSocketMode(t *testing.T, v *vm) {
	info, err := os.Lstat(v.c.VsockPath)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Type() != os.ModeSocket || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
}

func testSource(t *testing.T, v *vm) {
	c := v.mustDial(t, wire.PortSource)
	fmt.Fprintf(c, "%d\n", bulk)
	h := sha256.New()
	n, err := io.Copy(h, c) // to the end: the guest closes
	if err != nil || n != bulk || fmt.Sprintf("%x", h.Sum(nil)) != patternSum(bulk) {
		t.Errorf("got %d bytes, want %d: %v", n, bulk, err)
	}
}

func testSink(t *testing.T, v *vm) {
	c := v.mustDial(t, wire.PortSink)
	if _, err := io.CopyN(c, wire.Pattern(), bulk); err != nil {
		t.Fatal(err)
	}
	c.Close()
	report := v.accept(v.report)
	line, err := bufio.NewReader(report).ReadString('\n')
	if want := fmt.Sprintf("%d %s <nil>\n", bulk, patternSum(bulk)); err != nil || line != want {
		t.Errorf("the guest has read %q, %v; want %q", line, err, want)
	}
}

func testEcho(t *testing.T, v *vm) {
	if err := echo(v, bulk, 0); err != nil {
		t.Error(err)
	}
}

// echo sends n bytes and reads them back at the same time.
func echo(v *vm, n int64, salt byte) error {
	c, err := v.dial(wire.PortEcho)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, salted(salt), n)
		sent <- err
	}()
	want := salted(salt)
	got, exp := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := n; left > 0; {
		k := min(left, int64(len(got)))
		if _, err := io.ReadFull(c, got[:k]); err != nil {
			return fmt.Errorf("%d bytes before the end: %w", left, err)
		}
		io.ReadFull(want, exp[:k])
		if !bytes.Equal(got[:k], exp[:k]) {
			return fmt.Errorf("wrong bytes, %d before the end", left)
		}
		left -= k
	}
	return <-sent
}

// salted is a stream that differs from connection to connection.
func salted(salt byte) io.Reader {
	return io.MultiReader(bytes.NewReader([]byte{salt}), wire.Pattern())
}

func testParallel(t *testing.T, v *vm) {
	var wg sync.WaitGroup
	for i := range parallel {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := echo(v, 256<<10, byte(i)); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
}

func testEarlyClose(t *testing.T, v *vm) {
	for range 10 {
		c := v.mustDial(t, wire.PortSource)
		fmt.Fprintf(c, "%d\n", 1<<30)
		if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func testGuestRefuses(t *testing.T, v *vm) {
	for range 3 {
		if _, err := v.dial(wire.PortClosed); !errors.Is(err, errNoOK) && !isReset(err) {
			t.Errorf("dial: %v", err)
		}
	}
}

func testHostRefuses(t *testing.T, v *vm) {
	for range 3 {
		if got := v.do(t, "dial %d", wire.PortAbsent); !strings.HasPrefix(got, "error: ") {
			t.Errorf("the guest dials: %q", got)
		}
	}
}

func testBadRequests(t *testing.T, v *vm) {
	for _, line := range []string{
		"\n", "HELLO WORLD 10\n", "CONNECT -1\n", "CONNECT x\n", "CONNECT 4294967296\n",
		"CONNECT " + strings.Repeat("1", 100), strings.Repeat("A", 1<<16),
	} {
		c, err := net.Dial("unix", v.c.VsockPath)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, line)
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !isReset(err) {
			t.Errorf("%.20q is answered by %q, %v", line, b, err)
		}
		c.Close()
	}
}

func patternSum(n int64) string {
	h := sha256.New()
	io.CopyN(h, wire.Pattern(), n)
	return fmt.Sprintf("%x", h.Sum(nil))
}
