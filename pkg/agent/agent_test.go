package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-") // t.TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "v.sock")
}

func goodHello() api.Hello { return api.Hello{Version: api.Version, Kernel: "6.1.0"} }

// guest calls the host as an agent would and returns its end.
func call(t *testing.T, path string, k api.Kind, v any) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path+"_1024")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if v != nil {
		if err := api.WriteMessage(c, k, v); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// pair is a client and the guest's end of its connection.
func pair(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	g := call(t, path, api.KindHello, goodHello())
	c, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, g
}

func TestListen(t *testing.T) {
	path := socketPath(t)
	stale, err := net.Listen("unix", path+"_1024")
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	st, err := os.Stat(path + "_1024")
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", st.Mode(), err)
	}
	// Neither of these is an agent; the right one comes last.
	call(t, path, 0, nil)
	call(t, path, api.KindHello, api.Hello{Version: api.Version + 1})
	call(t, path, api.KindRequest, api.Request{ID: 1})
	bad := call(t, path, 0, nil)
	if _, err := bad.Write([]byte{1, 0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	h := goodHello()
	h.Kernel = "6.1\x1b[2J"
	call(t, path, api.KindHello, h)
	c, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.Hello().Kernel; got != "6.1 [2J" {
		t.Errorf("kernel %q", got)
	}
	if _, err := os.Lstat(path + "_1024"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket stays: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path+"_1024", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file was replaced")
	}
	if _, err := Listen("/tmp/" + strings.Repeat("x", 120)); err == nil {
		t.Error("a path of 120 bytes")
	}
}

func TestAcceptCancel(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	silent := call(t, path, 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a silent caller stays connected")
	}
}

// answer plays the guest: it replies to requests in the reverse order.
func TestCallsConcurrent(t *testing.T) {
	c, g := pair(t)
	const n = 20
	go func() {
		var ids []uint64
		for range n {
			var r api.Request
			if api.ReadMessage(g, api.KindRequest, &r) != nil {
				return
			}
			ids = append(ids, r.ID)
		}
		for i := range ids {
			id := ids[n-1-i]
			res, _ := json.Marshal(api.StartReply{PID: int(id)})
			_ = api.WriteMessage(g, api.KindReply, api.Reply{ID: id, Result: res})
		}
	}()
	errs := make(chan error, n)
	for i := range n {
		go func() {
			_, err := c.Start(t.Context(), api.StartRequest{ID: "c" + string(rune('a'+i))})
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestExits(t *testing.T) {
	c, g := pair(t)
	go func() {
		for range 2 {
			var r api.Request
			if api.ReadMessage(g, api.KindRequest, &r) != nil {
				return
			}
			_ = api.WriteMessage(g, api.KindReply, api.Reply{ID: r.ID, Result: json.RawMessage(`{"pid":7}`)})
		}
		_ = api.WriteMessage(g, api.KindExit, api.Exit{ID: "b", Code: 2, At: time.Now()})
		_ = api.WriteMessage(g, api.KindExit, api.Exit{ID: "a", Code: 137, Signal: 9, OOMKilled: true, At: time.Now()})
		g.Close()
	}()
	for _, id := range []string{"a", "b"} {
		if _, err := c.Start(t.Context(), api.StartRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for e := range c.Exits() {
		got = append(got, e.ID)
	}
	if strings.Join(got, " ") != "b a" {
		t.Errorf("exits %v", got)
	}
	if _, err := c.Start(t.Context(), api.StartRequest{ID: "x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("call after the end: %v", err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown of a guest that has gone: %v", err)
	}
}

// What a lying guest sends ends its connection, and calls with it.
func TestLies(t *testing.T) {
	msg := func(k api.Kind, v any) []byte {
		var b bytes.Buffer
		if err := api.WriteMessage(&b, k, v); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	lies := map[string][]byte{
		"exit of a stranger":   msg(api.KindExit, api.Exit{ID: "other"}),
		"exit of a path":       msg(api.KindExit, api.Exit{ID: "../../x"}),
		"exit code":            msg(api.KindExit, api.Exit{ID: "a", Code: 1 << 31}),
		"exit twice":           append(msg(api.KindExit, api.Exit{ID: "a"}), msg(api.KindExit, api.Exit{ID: "a"})...),
		"reply out of nowhere": msg(api.KindReply, api.Reply{ID: 99}),
		"reply zero":           msg(api.KindReply, api.Reply{ID: 0}),
		"hello again":          msg(api.KindHello, goodHello()),
		"stdio":                msg(api.KindStdout, 1),
		"huge":                 {byte(api.KindReply), 0xff, 0xff, 0xff, 0xff},
		"no JSON":              {byte(api.KindExit), 0, 0, 0, 1, '{'},
		"unknown kind":         {99, 0, 0, 0, 0},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			c, g := pair(t)
			go func() {
				var r api.Request
				_ = api.ReadMessage(g, api.KindRequest, &r)
				_, _ = g.Write(lie)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a lie that is believed fails, not hangs
			defer cancel()
			_, err := c.Start(ctx, api.StartRequest{ID: "a"})
			if !errors.Is(err, ErrClosed) || !errors.Is(err, api.ErrFrame) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestErrorIsClean(t *testing.T) {
	c, g := pair(t)
	go func() {
		var r api.Request
		_ = api.ReadMessage(g, api.KindRequest, &r)
		_ = api.WriteMessage(g, api.KindReply, api.Reply{ID: r.ID, Error: &api.Error{Code: "x", Phase: "p\n", Message: "a\x1b]0;title\x07b" + strings.Repeat("z", 10000)}})
	}()
	_, err := c.Setup(t.Context(), api.SetupRequest{})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInternal || strings.ContainsAny(e.Message+e.Phase, "\x1b\x07\n") || len(e.Message) > api.MaxError {
		t.Errorf("%#v", err)
	}
}

func TestCallCancel(t *testing.T) {
	c, g := pair(t)
	go io.Copy(io.Discard, g)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Signal(ctx, api.SignalRequest{ID: "a", Signal: 9}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	// A guest that does not read at all.
	c, _ = pair(t)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	big := api.StartRequest{ID: "a", User: strings.Repeat("u", 3<<20)}
	if _, err := c.Start(ctx, big); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A guest that sends without end costs no memory: here replies to a call that
// nobody waits for any more, 100 MB of them.
func TestFlood(t *testing.T) {
	c, g := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	go func() {
		var r api.Request
		_ = api.ReadMessage(g, api.KindRequest, &r)
		close(started)
	}()
	go func() { <-started; cancel() }()
	_ = c.Signal(ctx, api.SignalRequest{ID: "a", Signal: 1})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	reply := api.Reply{ID: 1, Result: json.RawMessage(`"` + strings.Repeat("x", 50000) + `"`)}
	for range 2000 {
		if err := api.WriteMessage(g, api.KindReply, reply); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes kept", grown)
	}
}

// vmSocket plays a VMM: it answers one connection with answer, then serves it.
func vmSocket(t *testing.T, answer string, serve func(net.Conn)) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				n, _ := c.Read(buf) // the line comes in one piece
				if string(buf[:n]) != "CONNECT 1024\n" {
					t.Errorf("handshake %q", buf[:n])
				}
				_, _ = io.WriteString(c, answer)
				if serve != nil {
					serve(c)
				}
			}()
		}
	}()
	return path
}

func TestConnect(t *testing.T) {
	for answer, want := range map[string]error{
		"":                        ErrRefused,
		"OK":                      ErrRefused,
		"NO 5\n":                  api.ErrFrame,
		"OK x\n":                  api.ErrFrame,
		"OK -1\n":                 api.ErrFrame,
		strings.Repeat("OK ", 99): api.ErrFrame,
	} {
		_, err := connect(t.Context(), vmSocket(t, answer, nil), api.AgentPort)
		if !errors.Is(err, want) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
	// The guest's first bytes may come with the line.
	c, err := connect(t.Context(), vmSocket(t, "OK 1073741824\nguest", nil), api.AgentPort)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "guest" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	block := make(chan struct{})
	defer close(block)
	if _, err := connect(ctx, vmSocket(t, "", func(net.Conn) { <-block }), api.AgentPort); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a VMM that does not answer: %v", err)
	}
}

// A list of processes comes in pieces, and one without an end is given up.
func TestProcesses(t *testing.T) {
	c, g := pair(t)
	endless := false
	go func() {
		for {
			var r api.Request
			if api.ReadMessage(g, api.KindRequest, &r) != nil {
				return
			}
			var q api.ProcessesRequest
			if api.Decode(r.Params, &q) != nil {
				return
			}
			reply := api.ProcessesReply{More: q.After < 3 || endless}
			for i := range 500 {
				if reply.Processes = append(reply.Processes, api.Process{PID: q.After + 1 + i}); !endless {
					break
				}
			}
			res, _ := json.Marshal(reply)
			_ = api.WriteMessage(g, api.KindReply, api.Reply{ID: r.ID, Result: res})
		}
	}()
	all, err := c.Processes(t.Context(), "a")
	if err != nil || len(all) != 4 || all[3].PID != 4 {
		t.Errorf("%+v, %v", all, err)
	}
	endless = true
	if _, err := c.Processes(t.Context(), "a"); !errors.Is(err, api.ErrFrame) {
		t.Errorf("a list without an end: %v", err)
	}
}

func TestDial(t *testing.T) {
	path := vmSocket(t, "OK 1\n", func(c net.Conn) {
		var o api.Open
		if api.ReadMessage(c, api.KindOpen, &o) != nil {
			return
		}
		if o.Token != "secret" || o.Purpose != api.PurposeControl {
			_ = api.WriteMessage(c, api.KindReply, api.Reply{Error: &api.Error{Message: "wrong token"}})
			return
		}
		_ = api.WriteMessage(c, api.KindHello, goodHello())
		_, _ = io.Copy(io.Discard, c)
	})
	if _, err := Dial(t.Context(), path, "other"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "wrong token") {
		t.Errorf("%v", err)
	}
	c, err := Dial(t.Context(), path, "secret")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func stdioWith(t *testing.T, serve func(net.Conn)) *Stdio {
	t.Helper()
	path := vmSocket(t, "OK 1\n", func(c net.Conn) {
		var o api.Open
		if api.ReadMessage(c, api.KindOpen, &o) == nil && o.Purpose == api.PurposeStdio && o.Process == "a" {
			serve(c)
		}
	})
	s, err := OpenStdio(t.Context(), path, "secret", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStdio(t *testing.T) {
	got := make(chan string, 1)
	s := stdioWith(t, func(c net.Conn) {
		_ = api.WriteFrame(c, api.KindStdout, []byte("out"))
		_ = api.WriteFrame(c, api.KindStdout, nil)
		_ = api.WriteFrame(c, api.KindStderr, []byte("err"))
		_ = api.WriteFrame(c, api.KindStderr, nil)
		var in strings.Builder
		for {
			k, b, err := api.ReadFrame(c, nil)
			if err != nil || k != api.KindStdin || len(b) == 0 {
				break
			}
			in.Write(b)
		}
		got <- in.String()
	})
	var lines []string
	for {
		stream, b, err := s.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, stream.String()+" "+string(b))
	}
	if strings.Join(lines, "|") != "stdout out|stdout |stderr err|stderr " {
		t.Errorf("%q", lines)
	}
	want := strings.Repeat("x", 3*api.MaxData+1)
	if err := s.WriteStdin([]byte(want)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.CloseStdin(); err != nil {
			t.Fatal(err)
		}
	}
	if in := <-got; in != want {
		t.Errorf("%d bytes of stdin, want %d", len(in), len(want))
	}
	if err := s.WriteStdin([]byte("y")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write after close: %v", err)
	}
}

func TestStdioLies(t *testing.T) {
	for name, lie := range map[string]func(net.Conn){
		"stdin": func(c net.Conn) { _ = api.WriteFrame(c, api.KindStdin, []byte("x")) },
		"exit":  func(c net.Conn) { _ = api.WriteMessage(c, api.KindExit, api.Exit{}) },
		"after end": func(c net.Conn) {
			_ = api.WriteFrame(c, api.KindStdout, nil)
			_ = api.WriteFrame(c, api.KindStdout, nil)
		},
		"too large": func(c net.Conn) { _, _ = c.Write([]byte{byte(api.KindStdout), 0, 1, 0, 1}) },
		"cut":       func(c net.Conn) { _, _ = c.Write([]byte{byte(api.KindStdout), 0}) },
	} {
		s := stdioWith(t, lie)
		var err error
		for range 3 {
			if _, _, err = s.ReadFrame(); err != nil {
				break
			}
		}
		if !errors.Is(err, api.ErrFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenStdio(t.Context(), "/nowhere", "t", "../x"); err == nil {
		t.Error("a path as id")
	}
}

func FuzzClient(f *testing.F) {
	var b bytes.Buffer
	_ = api.WriteMessage(&b, api.KindReply, api.Reply{ID: 1, Result: json.RawMessage(`{"pid":3}`)})
	_ = api.WriteMessage(&b, api.KindExit, api.Exit{ID: "a", Code: 3})
	f.Add(b.Bytes())
	f.Add([]byte{byte(api.KindExit), 0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		host, guest := net.Pipe()
		c := newClient(host, goodHello())
		c.started["a"] = true
		c.next = 1
		go func() {
			_, _ = guest.Write(in)
			guest.Close()
		}()
		n := 0
		for e := range c.Exits() {
			if e.ID != "a" || e.Code < 0 || e.Code > 255 {
				t.Fatalf("let through: %+v", e)
			}
			n++
		}
		if n > 1 {
			t.Fatal("two exits of one process")
		}
		c.Close()
	})
}
