package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/nbd"
)

// diskGuest answers a connection for a disk with one frame, and gives it to go on.
func diskGuest(t *testing.T, kind api.Kind, answer any) (path string, conns <-chan net.Conn) {
	t.Helper()
	path = socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.ReadFull(c, make([]byte, len("CONNECT 1024\n")))
		io.WriteString(c, "OK 1\n")
		var o api.Open
		want := api.DiskRequest{Size: 1024, ReadOnly: true}
		if api.ReadMessage(c, api.KindOpen, &o) != nil || o.Purpose != api.PurposeDisk || o.Token != "secret" || *o.Disk != want {
			c.Close()
		} else if answer != nil {
			api.WriteMessage(c, kind, answer)
		}
		got <- c
	}()
	return path, got
}

func deviceReply(t *testing.T, device string) api.Reply {
	t.Helper()
	b, err := json.Marshal(api.DiskReply{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	return api.Reply{Result: b}
}

func smallFile(t *testing.T, size int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestDiskServes: after the answer the guest's requests are answered, until it
// says that it is over.
func TestDiskServes(t *testing.T) {
	path, conns := diskGuest(t, api.KindReply, deviceReply(t, "/dev/nbd7"))
	d, err := OpenDisk(t.Context(), path, "secret", smallFile(t, 1024), true)
	if err != nil {
		t.Fatal(err)
	}
	if d.Device() != "/dev/nbd7" {
		t.Error(d.Device())
	}
	guest := <-conns
	guest.SetDeadline(time.Now().Add(time.Minute))
	read := binary.BigEndian.AppendUint64([]byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0}, 5)
	read = append(read, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0) // the second 512 bytes
	if _, err := guest.Write(read); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 16+512)
	if _, err := io.ReadFull(guest, answer); err != nil || strings.Trim(string(answer[16:]), "x") != "" || answer[7] != 0 {
		t.Errorf("%q, %v", answer, err)
	}
	if _, err := guest.Write(append([]byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, 2}, make([]byte, 20)...)); err != nil {
		t.Fatal(err)
	}
	if err := d.Err(); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("close after the end: %v", err)
	}
}

// TestDiskEnds: a disk ends with its guest, with what its guest should not say,
// and by Close.
func TestDiskEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*Disk, net.Conn)
		want error
	}{
		"guest":  {func(_ *Disk, c net.Conn) { c.Close() }, io.ErrUnexpectedEOF},
		"broken": {func(_ *Disk, c net.Conn) { c.Write(make([]byte, 28)) }, nbd.ErrProtocol},
		"close":  {func(d *Disk, _ net.Conn) { d.Close() }, net.ErrClosed},
	} {
		path, conns := diskGuest(t, api.KindReply, deviceReply(t, "/dev/nbd0"))
		d, err := OpenDisk(t.Context(), path, "secret", smallFile(t, 1024), true)
		if err != nil {
			t.Fatal(err)
		}
		c := <-conns
		defer c.Close()
		select {
		case <-d.Done():
			t.Errorf("%s: over before", name)
		default:
		}
		test.end(d, c)
		if err := d.Err(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// TestDiskRefused: what is no answer to an Open of a disk.
func TestDiskRefused(t *testing.T) {
	for name, test := range map[string]struct {
		kind   api.Kind
		answer any
		want   string
	}{
		"refused":      {api.KindReply, api.Reply{Error: &api.Error{Code: api.CodeInternal, Phase: "disk", Message: "no\x1b nbd"}}, "no  nbd"},
		"other device": {api.KindReply, deviceReply(t, "/dev/vda"), "/dev/vda"},
		"path":         {api.KindReply, deviceReply(t, "/dev/nbd0/../../etc"), "/dev/nbd0/../../etc"},
		"option":       {api.KindReply, deviceReply(t, "/dev/nbd0,device=x"), "nbd0,device=x"},
		"large":        {api.KindReply, deviceReply(t, "/dev/nbd65536"), "65536"},
		"zeroes":       {api.KindReply, deviceReply(t, "/dev/nbd00"), "nbd00"},
		"nothing":      {api.KindReply, api.Reply{}, "JSON"},
		"frame":        {api.KindStdout, "x", "frame of kind 17"},
	} {
		path, conns := diskGuest(t, test.kind, test.answer)
		_, err := OpenDisk(t.Context(), path, "secret", smallFile(t, 1024), true)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		(<-conns).Close()
	}
}

func TestDiskContext(t *testing.T) {
	path, conns := diskGuest(t, 0, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := OpenDisk(ctx, path, "secret", smallFile(t, 1024), true); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	(<-conns).Close()
}

func TestDiskSize(t *testing.T) {
	for _, size := range []int{0, 1, 511, 1000} {
		if _, err := OpenDisk(t.Context(), "/nosuch", "secret", smallFile(t, size), true); err == nil || !strings.Contains(err.Error(), "no whole sectors") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
