package vmmtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// patience bounds every wait for a guest: emulated and on a busy host it takes
// its time, and a test that waits longer has failed.
const patience = 3 * time.Minute

// suite is Run's state.
type suite struct {
	env Env
	new func(*testing.T) vmm.Driver
}

// config is a VM of its own with directories of its own.
func (s *suite) config(t *testing.T, mode string) vmm.Config {
	t.Helper()
	// A socket path is short, a test's directory is not.
	dir, err := os.MkdirTemp("", "vmmtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	id := make([]byte, 6)
	rand.Read(id)
	c := vmm.Config{
		ID: hex.EncodeToString(id), Kernel: s.env.Kernel, Initrd: s.env.initramfs(t, dir, mode),
		CPUs: 1, MemoryMiB: 128,
		VsockPath: filepath.Join(dir, "v.sock"), ConsolePath: filepath.Join(dir, "console.log"), ConsoleLimit: 1 << 20,
		Dir: filepath.Join(dir, "vmm"),
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

// vm is a running machine and the host's end of what it talks.
type vm struct {
	vmm.Machine
	t      *testing.T
	c      vmm.Config
	ready  net.Conn
	report net.Listener
}

// start boots c without waiting for the guest.
func (s *suite) start(t *testing.T, c vmm.Config) *vm {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := s.new(t).Start(ctx, c)
	if err != nil {
		t.Fatalf("start: %v\n%s", err, console(c))
	}
	v := &vm{Machine: m, t: t, c: c}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("exit: %+v, console:\n%s", m.Exit(), console(c))
		}
	})
	return v
}

// boot starts c and waits until the guest serves.
func (s *suite) boot(t *testing.T, c vmm.Config) *vm {
	t.Helper()
	ready := listen(t, c, wire.PortReady)
	report := listen(t, c, wire.PortReport)
	v := s.start(t, c)
	v.report = report
	v.ready = v.accept(ready)
	line, err := bufio.NewReader(v.ready).ReadString('\n')
	if err != nil || line != wire.Ready+"\n" {
		t.Fatalf("guest's first line: %q, %v", line, err)
	}
	if m, ok := v.Machine.(vmm.Templated); ok {
		m.Heard()
	}
	return v
}

func listen(t *testing.T, c vmm.Config, port uint32) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", c.VsockPath, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// accept waits for the guest, or fails when the VM ends before.
func (v *vm) accept(l net.Listener) net.Conn {
	v.t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			v.t.Fatal(r.err)
		}
		v.t.Cleanup(func() { r.c.Close() })
		r.c.SetDeadline(time.Now().Add(patience))
		return r.c
	case <-v.Done():
		v.t.Fatalf("the VM ended: %+v", v.Exit())
	case <-time.After(patience):
		v.t.Fatal("the guest does not connect")
	}
	return nil
}

var errNoOK = errors.New("closed without OK")

// dial connects to a port of the guest in Firecracker's protocol.
func (v *vm) dial(port uint32) (net.Conn, error) {
	c, err := net.Dial("unix", v.c.VsockPath)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		c.Close()
		return nil, err
	}
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			c.Close()
			if len(line) == 0 {
				err = errNoOK
			}
			return nil, err
		}
	}
	var n uint32
	if _, err := fmt.Sscanf(string(line), "OK %d\n", &n); err != nil {
		c.Close()
		return nil, fmt.Errorf("answer %q", line)
	}
	return c, nil
}

func (v *vm) mustDial(t *testing.T, port uint32) net.Conn {
	t.Helper()
	c, err := v.dial(port)
	if err != nil {
		t.Fatalf("dial guest port %d: %v", port, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// do asks the guest to do something and returns its answer.
func (v *vm) do(t *testing.T, format string, args ...any) string {
	t.Helper()
	c := v.mustDial(t, wire.PortCommand)
	defer c.Close()
	fmt.Fprintf(c, format+"\n", args...)
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("guest command %s: %v", fmt.Sprintf(format, args...), err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// ended waits for the end of the VM.
func (v *vm) ended(t *testing.T) vmm.Exit {
	t.Helper()
	select {
	case <-v.Done():
		return v.Exit()
	case <-time.After(patience):
		t.Fatal("the VM does not end")
	}
	return vmm.Exit{}
}

func console(c vmm.Config) string {
	b, err := os.ReadFile(c.ConsolePath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
