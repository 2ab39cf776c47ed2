package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// newAPI starts a fake API and returns it with a client.
func newAPI(t *testing.T, on func(method, path string, body []byte) string) (*fakeAPI, *Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s := &fakeAPI{version: "1.16.1", on: on}
	listen(t, path, s.serve)
	c := NewClient(path)
	t.Cleanup(c.Close)
	return s, c, path
}

func listen(t *testing.T, path string, serve func(net.Listener)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(l)
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

func TestClientSendsEveryRequest(t *testing.T) {
	s, c, _ := newAPI(t, nil)
	ctx := context.Background()
	for _, phase := range []bool{false, true} {
		s.mu.Lock()
		s.started = phase
		s.mu.Unlock()
		for _, r := range append(fullSamples(), leanSamples()...) {
			_, e, _ := route(r.Method, r.Path)
			if a, ok := r.Body.(Action); ok && (a.Type == InstanceStart) == phase || !e.both && e.post != phase {
				continue
			}
			if err := c.Do(ctx, r); err != nil {
				t.Errorf("%s: %v", r, err)
			}
			s.mu.Lock()
			s.started = phase
			s.mu.Unlock()
		}
	}
	if s.accepted != 1 {
		t.Errorf("%d connections for all requests, want 1", s.accepted)
	}
}

func TestClientReads(t *testing.T) {
	s, c, _ := newAPI(t, nil)
	ctx := context.Background()
	if v, err := c.Version(ctx); err != nil || v.String() != "1.16.1" {
		t.Errorf("version %v, %v", v, err)
	}
	if i, err := c.Instance(ctx); err != nil || i.ID != "abc" || i.State != "Not started" || i.AppName != "Firecracker" {
		t.Errorf("instance %+v, %v", i, err)
	}
	if m, err := c.MachineConfig(ctx); err != nil || m.VCPUCount != 1 || m.MemSizeMiB != 128 {
		t.Errorf("machine config %+v, %v", m, err)
	}
	if d, err := c.MMDS(ctx); err != nil || string(d) != "{}" {
		t.Errorf("mmds %s, %v", d, err)
	}
	_, err1 := c.VMConfig(ctx)
	_, err2 := c.Balloon(ctx)
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	_, err3 := c.BalloonStats(ctx)
	_, err4 := c.BalloonHinting(ctx)
	_, err5 := c.MemoryHotplug(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Error(err)
	}
}

func TestClientKnowsTheRelease(t *testing.T) {
	s, c, _ := newAPI(t, nil)
	s.version = "1.12.1"
	r := PutSerial(Serial{SerialOutPath: "/s"})
	if err := c.Do(context.Background(), r); err != nil {
		t.Errorf("before the version is known firecracker decides: %v", err)
	}
	if _, err := c.Version(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := len(s.seen)
	err := c.Do(context.Background(), r)
	if want := "PUT /serial: the serial device: needs firecracker 1.14.0 or newer, this is 1.12.1"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if len(s.seen) != before {
		t.Error("the request was sent all the same")
	}
}

func TestClientErrors(t *testing.T) {
	s, c, path := newAPI(t, func(method, path string, _ []byte) string {
		if path == "/entropy" {
			return "two\nlines"
		}
		return ""
	})
	ctx := context.Background()
	send := func(r Request) string {
		err := c.Do(ctx, r)
		if e := (*Error)(nil); !errors.As(err, &e) {
			t.Errorf("%s: %v is no *Error", r, err)
			return ""
		}
		return err.Error()
	}
	for _, tt := range []struct {
		r    Request
		want string
	}{
		{PutEntropy(Entropy{}), "PUT /entropy: two lines"},
		{PatchVM(Paused), "PATCH /vm: The requested operation is not supported before starting the microVM."},
		{Request{Method: "PUT", Path: "/nope", Body: 1}, "PUT /nope: Invalid request method and/or path: PUT nope."},
		{Request{Method: "PUT", Path: "/entropy", Body: json.RawMessage(`{"x":1}`)}, "PUT /entropy: An error occurred when deserializing the json body of a request: unknown field `x` at PUT /entropy."},
		{Request{Method: "PUT", Path: "/entropy"}, "PUT /entropy: Empty PUT request."},
		// The HTTP layer's own errors are no JSON.
		{Request{Method: "POST", Path: "/entropy", Body: 1}, "POST /entropy: Invalid HTTP Method: Unsupported HTTP method. All previous unanswered requests will be dropped."},
	} {
		if got := send(tt.r); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	// Ten others hold connections: the server turns the eleventh away.
	c.Close()
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.open == 0 })
	for range maxFakeConns {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.open == maxFakeConns })
	if got := send(PutEntropy(Entropy{})); got != "PUT /entropy: Too many open connections." {
		t.Errorf("got %s", got)
	}
}

// waitFor polls a condition that another goroutine or process brings about.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen")
		}
	}
}

func TestClientConcurrentUse(t *testing.T) {
	s, c, _ := newAPI(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := fmt.Sprintf("d%d", i)
			if err := c.Do(context.Background(), PutDrive(Drive{DriveID: id, PathOnHost: "/d"})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.accepted != 1 || s.dropped != 0 || len(s.seen) != 20 {
		t.Errorf("%d connections, %d dropped, %d requests", s.accepted, s.dropped, len(s.seen))
	}
}

func TestClientDeadline(t *testing.T) {
	hold := make(chan struct{})
	_, c, _ := newAPI(t, func(_, path string, _ []byte) string {
		if path == "/entropy" {
			<-hold
		}
		return ""
	})
	defer close(hold)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := c.Do(ctx, PutEntropy(Entropy{}))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "PUT /entropy: ") {
		t.Errorf("got %v", err)
	}
}

// TestClientReconnects: a server that closes the connection after each answer,
// and one that goes on talking, are asked on a new connection.
func TestClientReconnects(t *testing.T) {
	for _, more := range []string{"", "HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n"} {
		path := filepath.Join(t.TempDir(), "s")
		closed := make(chan struct{}, 10)
		listen(t, path, func(l net.Listener) {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				answer(conn, 200, `{"firecracker_version":"1.16.1"}`)
				_, _ = io.WriteString(conn, more)
				conn.Close()
				closed <- struct{}{}
			}
		})
		c := NewClient(path)
		defer c.Close()
		for i := range 3 {
			if _, err := c.Version(context.Background()); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			<-closed
		}
	}
}

func TestClientWithoutServer(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := c.Version(context.Background()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestHostileServer answers with what no Firecracker sends.
func TestHostileServer(t *testing.T) {
	endless := strings.Repeat("x", 64<<10)
	for name, tt := range map[string]struct{ answer, want string }{
		"endless body":    {"HTTP/1.1 200 \r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat(endless, 17), "read answer: it is over"},
		"endless error":   {"HTTP/1.1 400 \r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat(endless, 17), "read answer: it is over"},
		"endless header":  {"HTTP/1.1 200 \r\nX: " + strings.Repeat(endless, 17) + "\r\n\r\n", "it is over"},
		"cut body":        {"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nab", "read answer"},
		"no JSON":         {"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{]", "decode answer"},
		"other JSON":      {"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n[]", "decode answer"},
		"no version":      {"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}", "not a Firecracker version"},
		"redirect":        {"HTTP/1.1 307 \r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "GET /version: status 307"},
		"empty error":     {"HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", "GET /version: status 400"},
		"no HTTP":         {"SSH-2.0-OpenSSH\r\n", "GET /version: "},
		"nothing":         {"", "GET /version: "},
		"error with ESC":  {"HTTP/1.1 400 \r\nContent-Length: 6\r\n\r\n\x1b[2J\xff!", "GET /version: [2J\uFFFD!"},
		"error of the id": {"HTTP/1.1 400 \r\nContent-Length: 21\r\n\r\n{\"fault_message\":123}", `{"fault_message":123}`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listen(t, path, func(l net.Listener) {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = io.WriteString(conn, tt.answer)
					conn.Close()
				}
			})
			c := NewClient(path)
			defer c.Close()
			_, err := c.Version(context.Background())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if err != nil && len(err.Error()) > maxErrorText+200 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}
