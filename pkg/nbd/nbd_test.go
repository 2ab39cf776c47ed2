package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const diskSize = 1 << 20

// content is what a disk of the tests holds, nothing of it twice in a row.
func content() []byte {
	b := make([]byte, diskSize)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i)
	}
	return b
}

func diskFile(t testing.TB, readOnly bool) Export {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // what is read-only is so by Serve alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Export{File: f, Size: diskSize, ReadOnly: readOnly}
}

// held is what the file holds.
func (e Export) held(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(e.File.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r request) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, requestMagic)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(r.command))
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return binary.BigEndian.AppendUint32(b, r.length)
}

// client is the other end of a Serve.
type client struct {
	t testing.TB
	net.Conn
	ended chan error
}

func serve(t testing.TB, ctx context.Context, e Export) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &client{t, ours, make(chan error, 1)}
	go func() { c.ended <- Serve(ctx, theirs, e) }()
	t.Cleanup(func() { ours.Close() })
	ours.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// ask makes one request, and returns the answer with as many bytes as a read has.
func (c *client) ask(r request, payload []byte) (status, []byte) {
	c.t.Helper()
	if _, err := c.Write(append(r.encode(), payload...)); err != nil {
		c.t.Fatal(err)
	}
	head := make([]byte, replySize)
	if _, err := io.ReadFull(c, head); err != nil {
		c.t.Fatal(err)
	}
	if m, k := binary.BigEndian.Uint32(head), binary.BigEndian.Uint64(head[8:]); m != replyMagic || k != r.cookie {
		c.t.Fatalf("magic %#x, cookie %d in answer to %+v", m, k, r)
	}
	st := status(binary.BigEndian.Uint32(head[4:]))
	var data []byte
	if st == statusOK && r.command == cmdRead {
		data = make([]byte, r.length)
		if _, err := io.ReadFull(c, data); err != nil {
			c.t.Fatal(err)
		}
	}
	return st, data
}

// end disconnects in order.
func (c *client) end() error {
	c.t.Helper()
	if _, err := c.Write(request{command: cmdDisc}.encode()); err != nil {
		c.t.Fatal(err)
	}
	return <-c.ended
}

func TestServe(t *testing.T) {
	e, want := diskFile(t, false), content()
	c := serve(t, t.Context(), e)
	for i, r := range []request{
		{offset: 0, length: 512}, {offset: 4096, length: chunk}, {offset: 512, length: 3*chunk + 512},
		{offset: 0, length: diskSize}, {offset: diskSize - 512, length: 512}, {offset: diskSize, length: 0},
	} {
		r.cookie = uint64(i)
		st, got := c.ask(r, nil)
		if st != statusOK || !bytes.Equal(got, want[r.offset:r.offset+uint64(r.length)]) {
			t.Errorf("read %+v: %d, %d bytes", r, st, len(got))
		}
	}
	for _, r := range []request{
		{offset: 512, length: 1024}, {offset: 8192, length: 2*chunk + 512, flags: flagFUA}, {offset: diskSize - 512, length: 512},
	} {
		r.command, r.cookie = cmdWrite, math.MaxUint64
		data := bytes.Repeat([]byte{0xa5, byte(r.offset >> 9)}, int(r.length)/2)
		copy(want[r.offset:], data)
		if st, _ := c.ask(r, data); st != statusOK {
			t.Errorf("write %+v: %d", r, st)
		}
	}
	clear(want[chunk : 2*chunk])
	for _, r := range []request{{command: cmdTrim, offset: chunk, length: chunk}, {command: cmdTrim}, {command: cmdFlush}, {command: cmdFlush, offset: math.MaxUint64, length: 7}} {
		if st, _ := c.ask(r, nil); st != statusOK {
			t.Errorf("%+v: %d", r, st)
		}
	}
	if err := c.end(); err != nil {
		t.Errorf("after an orderly end: %v", err)
	}
	if !bytes.Equal(e.held(t), want) {
		t.Error("the file does not hold what was written")
	}
}

// TestTrimGivesBack: what is trimmed takes no place on the host.
func TestTrimGivesBack(t *testing.T) {
	e := diskFile(t, false)
	var before, after unix.Stat_t
	c := serve(t, t.Context(), e)
	err := unix.Fstat(int(e.File.Fd()), &before)
	st, _ := c.ask(request{command: cmdTrim, length: diskSize}, nil)
	if err = errors.Join(err, unix.Fstat(int(e.File.Fd()), &after), c.end()); err != nil || st != statusOK {
		t.Fatal(st, err)
	}
	if after.Size != diskSize || after.Blocks >= before.Blocks {
		t.Errorf("%d bytes in %d blocks, before in %d", after.Size, after.Blocks, before.Blocks)
	}
}

// TestRefused: requests for what the client may not have are answered with an
// error, change nothing, and the next one is understood.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		readOnly bool
		r        request
		want     status
	}{
		"read beyond":           {false, request{command: cmdRead, offset: diskSize, length: 512}, statusInvalid},
		"read over the end":     {false, request{command: cmdRead, offset: diskSize - 512, length: 1024}, statusInvalid},
		"read that overflows":   {false, request{command: cmdRead, offset: math.MaxUint64 - 511, length: 1024}, statusInvalid},
		"read at the sign":      {false, request{command: cmdRead, offset: 1 << 63, length: 512}, statusInvalid},
		"write beyond":          {false, request{command: cmdWrite, offset: diskSize, length: 512}, statusInvalid},
		"write over the end":    {false, request{command: cmdWrite, offset: diskSize - 512, length: chunk + 512}, statusInvalid},
		"write that overflows":  {false, request{command: cmdWrite, offset: math.MaxUint64 - 511, length: 1024}, statusInvalid},
		"trim beyond":           {false, request{command: cmdTrim, offset: 512, length: diskSize}, statusInvalid},
		"trim that overflows":   {false, request{command: cmdTrim, offset: math.MaxUint64, length: math.MaxUint32}, statusInvalid},
		"write of a read-only":  {true, request{command: cmdWrite, offset: 512, length: 512}, statusPerm},
		"durable, of read-only": {true, request{command: cmdWrite, offset: 512, length: 512, flags: flagFUA}, statusPerm},
		"trim of a read-only":   {true, request{command: cmdTrim, offset: 512, length: 512}, statusPerm},
	} {
		t.Run(name, func(t *testing.T) {
			e := diskFile(t, test.readOnly)
			c := serve(t, t.Context(), e)
			var payload []byte
			if test.r.command == cmdWrite {
				payload = make([]byte, test.r.length)
			}
			if st, _ := c.ask(test.r, payload); st != test.want {
				t.Errorf("status %d, want %d", st, test.want)
			}
			if st, got := c.ask(request{cookie: 7, length: 512}, nil); st != statusOK || !bytes.Equal(got, content()[:512]) {
				t.Errorf("the next request: %d", st)
			}
			if err := c.end(); err != nil || !bytes.Equal(e.held(t), content()) {
				t.Errorf("changed, or %v", err)
			}
		})
	}
}

// TestBroken: what no client of ours sends ends the connection.
func TestBroken(t *testing.T) {
	magic := request{length: 512}.encode()
	magic[0]++
	for name, b := range map[string][]byte{
		"magic": magic, "command": request{command: 5}.encode(), "no command": request{command: math.MaxUint16}.encode(),
		"flags":          request{flags: 2, length: 512}.encode(),
		"long read":      request{length: MaxLength + 1}.encode(),
		"endless read":   request{length: math.MaxUint32}.encode(),
		"long write":     request{command: cmdWrite, length: MaxLength + 1}.encode(),
		"flags of write": request{command: cmdWrite, flags: 1 << 15, length: 512}.encode(),
	} {
		c := serve(t, t.Context(), diskFile(t, false))
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := <-c.ended; !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: an answer", name)
		}
	}
}

// TestCut: a connection that ends without a word is not an orderly end.
func TestCut(t *testing.T) {
	write := append(request{command: cmdWrite, length: 1024}.encode(), make([]byte, 512)...)
	for _, n := range []int{0, 5, requestSize, len(write)} {
		e := diskFile(t, false)
		c := serve(t, t.Context(), e)
		if _, err := c.Write(write[:n]); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-c.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
		if !bytes.Equal(e.held(t), content()) {
			t.Errorf("cut at %d: a part was written", n)
		}
	}
}

// TestContext: its end ends a Serve whose client takes no answer.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := serve(t, ctx, diskFile(t, false))
	if _, err := c.Write(request{length: 512}.encode()); err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	cancel(why)
	if err := <-c.ended; !errors.Is(err, why) {
		t.Error(err)
	}
}

// TestFileFails: an error of the file is told to the client, and to the caller.
func TestFileFails(t *testing.T) {
	e := diskFile(t, false)
	if err := e.File.Truncate(chunk + 512); err != nil {
		t.Fatal(err)
	}
	c := serve(t, t.Context(), e)
	if st, _ := c.ask(request{offset: 2 * chunk, length: 512}, nil); st != statusIO {
		t.Errorf("status %d of a read of what is not there", st)
	}
	if st, got := c.ask(request{length: 512}, nil); st != statusOK || !bytes.Equal(got, content()[:512]) {
		t.Errorf("status %d afterwards", st)
	}
	if err := c.end(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	// Where a part of the answer is out already, its end is that of the connection.
	c = serve(t, t.Context(), e)
	if _, err := c.Write(request{length: 3 * chunk}.encode()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != replySize+chunk {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := <-c.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

// TestHostFull: that the host's disk is full is an error of the write alone.
func TestHostFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := serve(t, t.Context(), Export{File: f, Size: diskSize})
	if st, _ := c.ask(request{command: cmdWrite, length: 512}, make([]byte, 512)); st != statusNoSpace {
		t.Errorf("status %d", st)
	}
	if err := c.end(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
}

// TestMemory: what is asked for costs one buffer.
func TestMemory(t *testing.T) {
	e := diskFile(t, false)
	e.Size = MaxLength
	if err := e.File.Truncate(MaxLength); err != nil {
		t.Fatal(err)
	}
	in := append(request{length: MaxLength}.encode(), request{command: cmdWrite, length: MaxLength}.encode()...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Serve(t.Context(), endlessConn{io.MultiReader(bytes.NewReader(in), zeroes{})}, e)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrProtocol) { // zeroes are no request
		t.Fatal(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*chunk {
		t.Errorf("%d bytes allocated", got)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type endlessConn struct{ io.Reader }

func (endlessConn) Write(p []byte) (int, error) { return len(p), nil }
func (endlessConn) Close() error                { return nil }

// recorded is a connection that has said everything.
type recorded struct {
	io.Reader
	out bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) { return r.out.Write(p) }
func (r *recorded) Close() error                { return nil }

// FuzzServe: whatever a client says, the file keeps its size, and what is
// read-only its content.
func FuzzServe(f *testing.F) {
	var all []byte
	for _, r := range []request{{length: 512}, {command: cmdTrim, length: 4096}, {command: cmdFlush}, {command: cmdWrite, flags: flagFUA, length: 4}} {
		all = append(all, r.encode()...)
		f.Add(r.encode(), true)
	}
	f.Add(append(append(all, "abcd"...), request{command: cmdDisc}.encode()...), false)
	f.Add(request{offset: math.MaxUint64, length: math.MaxUint32}.encode(), false)
	const size = 8192
	want := content()[:size]
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC) // to sync it costs nothing
	if err != nil {
		f.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "disk")
	f.Cleanup(func() { file.Close() })
	f.Fuzz(func(t *testing.T, in []byte, readOnly bool) {
		if _, err := file.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		e := Export{File: file, Size: size, ReadOnly: readOnly}
		c := &recorded{Reader: bytes.NewReader(in)}
		_ = Serve(t.Context(), c, e)
		got, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64))
		if err != nil || len(got) != size || readOnly && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, changed: %v, %v", len(got), !bytes.Equal(got, want), err)
		}
		if most := len(in) / requestSize * (replySize + size); c.out.Len() > most {
			t.Fatalf("%d bytes of answers to %d", c.out.Len(), len(in))
		}
	})
}
