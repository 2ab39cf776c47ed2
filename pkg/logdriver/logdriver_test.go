package logdriver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/logfile"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func spec(t *testing.T, driver string, options map[string]string) Spec {
	t.Helper()
	return Spec{
		Driver: driver, Options: options, Path: filepath.Join(t.TempDir(), "log"),
		Container: Container{
			ID: strings.Repeat("0123456789abcdef", 4), Name: "web", ImageName: "busybox:1", ImageID: "sha256:fedcba987654321",
			Args: []string{"sh", "-c", "true"}, Env: []string{"COLOR=red", "EMPTY=", "NAME=a=b"},
			Labels: map[string]string{"com.example.app": "demo", "_two lines": "1\n2"},
		},
	}
}

func TestOptions(t *testing.T) {
	type m = map[string]string
	for _, tt := range []struct {
		driver string
		given  m
		want   string // of the files, or the error
	}{
		{"", nil, "20971520x5 zip"}, {"local", nil, "20971520x5 zip"},
		{"local", m{"max-size": "1m", "max-file": "3"}, "1000000x3 zip"},
		{"local", m{"max-file": "1"}, "compression cannot be enabled when max file count is 1"},
		{"local", m{"max-file": "1", "compress": "false"}, "20971520x1"},
		{"local", m{"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"},
		{"local", m{"max-size": "-1"}, "invalid value for max-size: -1: invalid size: '-1'"},
		{"local", m{"max-size": "0"}, "max-size must be a positive number"},
		{"local", m{"max-file": "-1"}, "max-file must not be negative"},
		{"local", m{"max-file": "many"}, `invalid value for max-file: many: strconv.Atoi: parsing "many": invalid syntax`},
		{"local", m{"max-file": "10001"}, "max-file must be 10000 at most"},
		{"local", m{"compress": "perhaps"}, `invalid boolean value for compress: strconv.ParseBool: parsing "perhaps": invalid syntax`},
		{"local", m{"foo": "1"}, "unknown log opt 'foo' for log driver local"},
		{"json-file", nil, "20971520x5"},
		{"json-file", m{"max-size": "10k"}, "10000x1"},
		{"json-file", m{"max-size": "-1"}, "0x1"},
		{"json-file", m{"max-file": "2"}, "20971520x2"},
		{"json-file", m{"max-size": "10k", "max-file": "2", "compress": "true"}, "10000x2 zip"},
		{"json-file", m{"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", m{"max-size": "10k", "compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", m{"max-file": "0"}, "max-file cannot be less than 1"},
		{"json-file", m{"max-size": ""}, "invalid size: ''"},
		{"json-file", m{"max-size": "0"}, "max-size must be a positive number"},
		{"json-file", m{"foo": "1"}, "unknown log opt 'foo' for json-file log driver"},
		{"journald", nil, "20971520x5 zip"},
		{"journald", m{"cache-max-size": "10k", "cache-max-file": "2"}, "10000x2 zip"},
		{"journald", m{"cache-disabled": "true"}, "20971520x5 zip off"},
		{"journald", m{"cache-disabled": "perhaps"}, "invalid value for option cache-disabled: perhaps"},
		{"journald", m{"max-size": "10k"}, "unknown log opt 'max-size' for journald log driver"},
		{"none", nil, "20971520x5 zip"},
		{"bogus", nil, "logger: no log driver named 'bogus' is registered"},
		{"local", m{"mode": "non-blocking", "max-buffer-size": "4m"}, "20971520x5 zip buffer 4194304"},
		{"local", m{"mode": "non-blocking"}, "20971520x5 zip buffer 1048576"},
		{"local", m{"mode": "blocking"}, "20971520x5 zip"},
		{"local", m{"mode": "x"}, "logger: logging mode not supported: x"},
		{"local", m{"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"local", m{"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size: invalid size: 'x'"},
	} {
		o, err := parse(tt.driver, tt.given)
		got := fmt.Sprintf("%dx%d", o.maxSize, o.maxFiles)
		for _, w := range []struct {
			on   bool
			text string
		}{{o.compress, " zip"}, {o.cacheDisabled, " off"}, {o.nonBlocking, fmt.Sprintf(" buffer %d", o.bufferSize)}} {
			if w.on {
				got += w.text
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %v: %s, want %s", tt.driver, tt.given, got, tt.want)
		}
	}
}

func TestAttributes(t *testing.T) {
	type m = map[string]string
	for _, tt := range []struct{ given, want m }{
		{nil, m{}},
		{m{"labels": "com.example.app,none", "env": "COLOR,NAME"}, m{"com.example.app": "demo", "COLOR": "red", "NAME": "a=b"}},
		{m{"labels-regex": "^com", "env-regex": "^EMPTY$"}, m{"com.example.app": "demo", "EMPTY": ""}},
		{m{"tag": "{{.ID}}/{{.FullID}}"}, m{"tag": "0123456789ab/" + strings.Repeat("0123456789abcdef", 4)}},
		{m{"tag": "{{.Name}} {{.ImageName}} {{.ImageID}} {{.ImageFullID}}"}, m{"tag": "web busybox:1 fedcba987654 sha256:fedcba987654321"}},
		{m{"tag": `{{.Command}} {{.ContainerEntrypoint}} {{index .ContainerLabels "com.example.app"}} {{.DaemonName}}`}, m{"tag": "sh -c true sh demo micropod"}},
		{m{"tag": `{{upper .Name}} {{json .ContainerArgs}} {{truncate .Name 2}}`}, m{"tag": `WEB ["-c","true"] we`}},
		{m{"tag": "plain"}, m{"tag": "plain"}},
	} {
		got, err := Attributes(spec(t, Local, tt.given))
		if err != nil || !maps.Equal(got, tt.want) {
			t.Errorf("%v: %v, %v; want %v", tt.given, got, err, tt.want)
		}
	}
	for _, bad := range []m{{"tag": "{{.Foo}}"}, {"tag": "{{"}, {"labels-regex": "("}, {"env-regex": "("}} {
		if err := Check(spec(t, JSONFile, bad)); err == nil {
			t.Errorf("%v is no error", bad)
		}
	}
	long := spec(t, JSONFile, m{"env": "LONG"})
	long.Container.Env = []string{"LONG=" + strings.Repeat("x", logfile.MaxAttrs)}
	if err := Check(long); err == nil {
		t.Error("attributes that no entry has place for are no error")
	}
}

// written counts what a Log tells of.
type written struct {
	calls chan error
}

func newWritten() written { return written{make(chan error, 1000)} }

func (w written) take(err error) { w.calls <- err }

func mustOpen(t *testing.T, s Spec, w written) *Log {
	t.Helper()
	l, err := Open(s, w.take)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func contents(t *testing.T, s Spec) string {
	t.Helper()
	c, err := Source(s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = logfile.Read(context.Background(), c, logfile.Options{Tail: -1}, func(l logfile.Line) error {
		fmt.Fprintf(&b, "%s:%s", l.Stream, l.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFiles(t *testing.T) {
	for _, driver := range []string{"", Local, JSONFile} {
		for _, mode := range []string{"blocking", "non-blocking"} {
			s, w := spec(t, driver, map[string]string{"mode": mode}), newWritten()
			l := mustOpen(t, s, w)
			l.Write(logfile.Stdout, epoch, []byte("one\ntwo"))
			if err := <-w.calls; err != nil {
				t.Error(err)
			}
			l.Write(logfile.Stderr, epoch, []byte("err\n"))
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if got, want := contents(t, s), "stdout:one\nstderr:err\nstdout:two"; got != want {
				t.Errorf("%s %s: %q, want %q", driver, mode, got, want)
			}
		}
	}
}

func TestNone(t *testing.T) {
	s := spec(t, None, nil)
	l := mustOpen(t, s, newWritten())
	l.Write(logfile.Stdout, epoch, []byte("one\n"))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Source(s); !errors.Is(err, ErrUnreadable) {
		t.Errorf("source: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(s.Path)); len(left) > 0 {
		t.Errorf("there are files: %v", left)
	}
}

// slow is a sink that takes an entry when it is told to.
type slow struct {
	go_  chan struct{}
	text strings.Builder
}

func (s *slow) Write(e logfile.Entry) error {
	<-s.go_
	s.text.Write(e.Text)
	s.text.WriteByte(' ')
	return nil
}
func (s *slow) Flush() error { return nil }
func (s *slow) Close() error { return nil }

// The mode non-blocking holds nobody up, and drops what it has no place for.
func TestNonBlocking(t *testing.T) {
	sink, w := &slow{go_: make(chan struct{})}, newWritten()
	l := &Log{sink: sink, written: w.take, queue: newQueue(10, sink, w.take)}
	l.Write(logfile.Stdout, epoch, []byte("first\n"))
	for l.queue.length() > 0 { // until the sink has it
		time.Sleep(time.Millisecond)
	}
	l.Write(logfile.Stdout, epoch, []byte("four\nfive\nsix\nx\n"))
	close(sink.go_)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if got := sink.text.String(); got != "first four five x " {
		t.Errorf("written %q", got)
	}
	if n := len(w.calls); n != 4 {
		t.Errorf("told of %d entries", n)
	}
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// journald is a fake of the system's.
type journald struct {
	conn *net.UnixConn
	path string
}

func startJournald(t *testing.T) *journald {
	t.Helper()
	dir, err := os.MkdirTemp("", "j") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	j := &journald{path: filepath.Join(dir, "socket")}
	j.listen(t)
	t.Cleanup(func() { j.conn.Close() })
	return j
}

func (j *journald) listen(t *testing.T) {
	t.Helper()
	os.Remove(j.path)
	var err error
	if j.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
}

// next receives an entry as journald does, from a datagram or a file.
func (j *journald) next(t *testing.T) map[string]string {
	t.Helper()
	b, oob := make([]byte, 1<<20), make([]byte, 64)
	if err := j.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, noob, _, _, err := j.conn.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	if noob > 0 {
		b = readPassed(t, oob[:noob])
		n = len(b)
	}
	return parseEntry(t, b[:n])
}

func readPassed(t *testing.T, oob []byte) []byte {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("the file is not sealed: %x, %v", seals, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func parseEntry(t *testing.T, b []byte) map[string]string {
	t.Helper()
	fields := map[string]string{}
	text := string(b)
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		if k, v, ok := strings.Cut(line, "="); ok {
			fields[k], text = v, rest
			continue
		}
		n := int(binary.LittleEndian.Uint64([]byte(rest[:8])))
		fields[line], text = rest[8:8+n], rest[8+n+1:]
	}
	return fields
}

func TestJournald(t *testing.T) {
	j := startJournald(t)
	s := spec(t, Journald, map[string]string{"labels": "com.example.app,_two lines", "tag": "{{.Name}}", "env": "COLOR"})
	s.JournalSocket = j.path
	w := newWritten()
	l := mustOpen(t, s, w)
	l.Write(logfile.Stdout, epoch, []byte("one\n"))
	got := j.next(t)
	for k, v := range map[string]string{
		"MESSAGE": "one", "PRIORITY": "6", "CONTAINER_ID": "0123456789ab", "CONTAINER_ID_FULL": s.Container.ID,
		"CONTAINER_NAME": "web", "CONTAINER_TAG": "web", "SYSLOG_IDENTIFIER": "web", "IMAGE_NAME": "busybox:1",
		"SYSLOG_TIMESTAMP": "2026-01-02T03:04:05.000000006Z", "CONTAINER_LOG_ORDINAL": "1",
		"COM_EXAMPLE_APP": "demo", "TWO_LINES": "1\n2", "COLOR": "red",
	} {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
	if _, ok := got["CONTAINER_PARTIAL_MESSAGE"]; ok || len(got["CONTAINER_LOG_EPOCH"]) != 64 {
		t.Errorf("fields: %v", got)
	}
	// A line that is too long for one entry.
	l.Write(logfile.Stderr, epoch, []byte(strings.Repeat("x", logfile.MaxText+1)+"\n"))
	first, last := j.next(t), j.next(t)
	if first["CONTAINER_PARTIAL_MESSAGE"] != "true" || first["CONTAINER_PARTIAL_ORDINAL"] != "1" || first["CONTAINER_PARTIAL_LAST"] != "false" ||
		last["CONTAINER_PARTIAL_MESSAGE"] != "" || last["CONTAINER_PARTIAL_ORDINAL"] != "2" || last["CONTAINER_PARTIAL_LAST"] != "true" ||
		first["CONTAINER_PARTIAL_ID"] == "" || first["CONTAINER_PARTIAL_ID"] != last["CONTAINER_PARTIAL_ID"] || last["PRIORITY"] != "3" || last["MESSAGE"] != "x" {
		t.Errorf("pieces: %v, then %v", first, last)
	}
	// journald is started anew.
	j.conn.Close()
	j.listen(t)
	l.Write(logfile.Stdout, epoch, []byte("again\n"))
	if got := j.next(t); got["MESSAGE"] != "again" || got["CONTAINER_LOG_ORDINAL"] != "4" {
		t.Errorf("after a restart: %v", got)
	}
	// It goes: the container goes on, and so does the copy that can be read.
	for len(w.calls) > 0 {
		if err := <-w.calls; err != nil {
			t.Error(err)
		}
	}
	j.conn.Close()
	os.Remove(j.path)
	l.Write(logfile.Stdout, epoch, []byte("lost\n"))
	if err := <-w.calls; err == nil {
		t.Error("a journald that is not there is no error")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if got := contents(t, s); !strings.HasPrefix(got, "stdout:one\nstderr:xxx") || !strings.HasSuffix(got, "stdout:again\nstdout:lost\n") {
		t.Errorf("the copy holds %q", got)
	}
}

// An entry that is too long for a datagram comes in a file.
func TestJournaldLongEntry(t *testing.T) {
	j := startJournald(t)
	s := spec(t, Journald, map[string]string{"env": "LONG", "cache-disabled": "true"})
	s.JournalSocket = j.path
	long := strings.Repeat("x", 400<<10)
	s.Container.Env = []string{"LONG=" + long}
	w := newWritten()
	l := mustOpen(t, s, w)
	l.Write(logfile.Stdout, epoch, []byte("one\n"))
	if err := <-w.calls; err != nil {
		t.Fatal(err)
	}
	if got := j.next(t); got["MESSAGE"] != "one" || got["LONG"] != long {
		t.Errorf("%q with %d bytes", got["MESSAGE"], len(got["LONG"]))
	}
	l.Close()
	if _, err := Source(s); !errors.Is(err, ErrUnreadable) {
		t.Errorf("source: %v", err)
	}
}

func TestNoJournald(t *testing.T) {
	s := spec(t, Journald, nil)
	s.JournalSocket = filepath.Join(t.TempDir(), "none")
	if _, err := Open(s, nil); err == nil || err.Error() != "journald is not enabled on this host" {
		t.Error(err)
	}
}

// A journald that takes nothing does not hold the container up for ever.
func TestJournaldHangs(t *testing.T) {
	j := startJournald(t)
	s := spec(t, Journald, nil)
	s.JournalSocket = j.path
	w := written{make(chan error, 100000)}
	l := mustOpen(t, s, w)
	patience := &l.sink.(both).first.(*journal).patience
	*patience = time.Millisecond
	for i := range 1000 {
		l.Write(logfile.Stdout, epoch, fmt.Appendf(nil, "line %d\n", i))
	}
	failed := 0
	for len(w.calls) > 0 {
		if <-w.calls != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("its queue was never full")
	}
	*patience = time.Minute
	for range 5 { // there is place again
		j.next(t)
	}
	l.Write(logfile.Stdout, epoch, []byte("after\n"))
	if err := <-w.calls; err != nil {
		t.Errorf("it takes entries again: %v", err)
	}
	l.Close()
	if got := contents(t, s); strings.Count(got, "\n") != 1001 {
		t.Errorf("the copy has %d lines", strings.Count(got, "\n"))
	}
}
