package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
)

// filesPair is an operation on files and the guest's end of its connection, once
// the guest has answered with first.
func filesPair(t *testing.T, ctx context.Context, first api.Reply) (*Files, net.Conn, error) {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	guest := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line := make([]byte, len("CONNECT 1024\n"))
		io.ReadFull(c, line)
		io.WriteString(c, "OK 1\n")
		var o api.Open
		if api.ReadMessage(c, api.KindOpen, &o) == nil && o.Purpose == api.PurposeFiles && o.Files.Path == "/etc" {
			api.WriteMessage(c, api.KindReply, first)
		}
		guest <- c
	}()
	f, err := OpenFiles(ctx, path, "secret", api.FilesRequest{Op: api.FileArchive, Path: "/etc"})
	c := <-guest
	t.Cleanup(func() { c.Close() })
	if err == nil {
		t.Cleanup(func() { f.Close() })
	}
	return f, c, err
}

func info(t *testing.T, s api.FileInfo) api.Reply {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return api.Reply{Result: b}
}

func TestFilesRead(t *testing.T) {
	f, guest, err := filesPair(t, t.Context(), info(t, api.FileInfo{Size: 7, Mode: 0o100644}))
	if err != nil || f.Info.Size != 7 {
		t.Fatalf("%+v, %v", f, err)
	}
	want := bytes.Repeat([]byte("tar"), api.MaxData/3)
	go func() {
		api.WriteFrame(guest, api.KindStdout, want)
		api.WriteFrame(guest, api.KindStdout, want)
		api.WriteMessage(guest, api.KindReply, api.Reply{})
	}()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, append(want, want...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Only the guest's last word makes what came the whole.
func TestFilesReadEnds(t *testing.T) {
	tests := map[string]struct {
		last func(c net.Conn)
		want error
	}{
		"cut":          {func(c net.Conn) { c.Close() }, io.ErrUnexpectedEOF},
		"empty frame":  {func(c net.Conn) { api.WriteFrame(c, api.KindStdout, nil) }, api.ErrFrame},
		"wrong kind":   {func(c net.Conn) { api.WriteFrame(c, api.KindStderr, []byte("x")) }, api.ErrFrame},
		"no JSON":      {func(c net.Conn) { api.WriteFrame(c, api.KindReply, []byte("x")) }, api.ErrFrame},
		"half a frame": {func(c net.Conn) { c.Write([]byte{17, 0, 0, 1, 0, 'x'}); c.Close() }, io.ErrUnexpectedEOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, guest, err := filesPair(t, t.Context(), api.Reply{})
			if err != nil {
				t.Fatal(err)
			}
			api.WriteFrame(guest, api.KindStdout, []byte("half"))
			tt.last(guest)
			b, err := io.ReadAll(f)
			if string(b) != "half" || !errors.Is(err, tt.want) {
				t.Errorf("%q, %v; want %v", b, err, tt.want)
			}
		})
	}
	f, guest, err := filesPair(t, t.Context(), api.Reply{})
	if err != nil {
		t.Fatal(err)
	}
	api.WriteMessage(guest, api.KindReply, api.Reply{Error: &api.Error{Code: "x", Message: "shrank\x1b[2J"}})
	_, err = io.ReadAll(f)
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Code != api.CodeInternal || strings.Contains(refused.Message, "\x1b") {
		t.Errorf("error %v", err)
	}
}

func TestFilesRefused(t *testing.T) {
	tests := map[string]api.Reply{
		"refused":       {Error: &api.Error{Code: api.CodeNotFound, Message: "no"}},
		"negative size": info(t, api.FileInfo{Size: -1}),
		"mode":          info(t, api.FileInfo{Mode: 1 << 20}),
		"relative link": info(t, api.FileInfo{LinkTarget: "../x"}),
		"long link":     info(t, api.FileInfo{LinkTarget: "/" + strings.Repeat("x", api.MaxPath)}),
		"NUL in link":   info(t, api.FileInfo{LinkTarget: "/a\x00b"}),
		"wrong type":    {Result: json.RawMessage(`"x"`)},
	}
	for name, first := range tests {
		if _, _, err := filesPair(t, t.Context(), first); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFilesSend(t *testing.T) {
	f, guest, err := filesPair(t, t.Context(), api.Reply{})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x", 3*api.MaxData+1)
	got := make(chan string, 1)
	go func() {
		var all []byte
		for {
			_, b, err := api.ReadFrame(guest, nil)
			if err != nil || len(b) == 0 {
				break
			}
			all = append(all, b...)
		}
		got <- string(all)
		api.WriteMessage(guest, api.KindReply, api.Reply{})
	}()
	if err := f.Send(strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != want {
		t.Errorf("%d bytes came of %d", len(s), len(want))
	}
}

// endless is a source that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestFilesSendEnds(t *testing.T) {
	t.Run("the guest refuses and reads no more", func(t *testing.T) {
		f, guest, err := filesPair(t, t.Context(), api.Reply{})
		if err != nil {
			t.Fatal(err)
		}
		go api.WriteMessage(guest, api.KindReply, api.Reply{Error: &api.Error{Code: api.CodeInvalid, Message: "full"}})
		var refused *api.Error
		if err := f.Send(endless{}); !errors.As(err, &refused) || refused.Message != "full" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the source fails", func(t *testing.T) {
		f, _, err := filesPair(t, t.Context(), api.Reply{})
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("bad disk")
		r, w := io.Pipe()
		w.CloseWithError(cause)
		if err := f.Send(r); !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the guest answers with bytes", func(t *testing.T) {
		f, guest, err := filesPair(t, t.Context(), api.Reply{})
		if err != nil {
			t.Fatal(err)
		}
		go api.WriteFrame(guest, api.KindStdout, []byte("x"))
		if err := f.Send(endless{}); !errors.Is(err, api.ErrFrame) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, _, err := filesPair(t, ctx, api.Reply{})
		if err != nil {
			t.Fatal(err)
		}
		go cancel()
		if err := f.Send(endless{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestFilesChanges(t *testing.T) {
	tests := map[string]struct {
		bytes string
		want  int
		ok    bool
	}{
		"none":        {"", 0, true},
		"some":        {"A/a\x00C/b\x00D/c d\n\x00", 3, true},
		"no end":      {"A/a\x00C/b", 1, false},
		"kind":        {"X/a\x00", 0, false},
		"no path":     {"A\x00", 0, false},
		"empty":       {"\x00", 0, false},
		"relative":    {"Aa\x00", 0, false},
		"climbs":      {"A/../a\x00", 0, false},
		"very long":   {"A/" + strings.Repeat("x", api.MaxPath) + "\x00", 0, false},
		"just fits":   {"A/" + strings.Repeat("x", api.MaxPath-1) + "\x00", 1, true},
		"never ended": {"A/" + strings.Repeat("x", 60000), 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, guest, err := filesPair(t, t.Context(), api.Reply{})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if tt.bytes != "" {
					api.WriteFrame(guest, api.KindStdout, []byte(tt.bytes))
				}
				api.WriteMessage(guest, api.KindReply, api.Reply{})
			}()
			n := 0
			err = f.Changes(func(api.Change) error { n++; return nil })
			if n != tt.want || (err == nil) != tt.ok {
				t.Errorf("%d changes, %v", n, err)
			}
		})
	}
}

// FuzzFiles feeds a guest's bytes to an operation. There is no panic, and the
// end is one only after a Reply without an error.
func FuzzFiles(f *testing.F) {
	var good bytes.Buffer
	api.WriteMessage(&good, api.KindReply, api.Reply{Result: json.RawMessage(`{"size":3,"mode":33188,"linkTarget":"/x"}`)})
	api.WriteFrame(&good, api.KindStdout, []byte("A/x\x00"))
	api.WriteMessage(&good, api.KindReply, api.Reply{})
	f.Add(good.Bytes())
	f.Add([]byte{4, 0, 0, 0, 2, '{', '}', 17, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		host, guest := net.Pipe()
		defer host.Close()
		go func() {
			guest.Write(b)
			guest.Close()
		}()
		files := &Files{conn: host, ctx: context.Background(), buf: make([]byte, api.MaxData), stop: func() bool { return true }}
		if err := files.first(api.FilesRequest{Op: api.FileStat}); err != nil {
			return
		}
		if err := files.Info.Check(); err != nil {
			t.Fatalf("unchecked: %v", err)
		}
		_ = files.Changes(func(c api.Change) error {
			if err := c.Check(); err != nil {
				t.Fatalf("unchecked: %v", err)
			}
			return nil
		})
	})
}
