package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestFrameRoundTrip(t *testing.T) {
	payloads := [][]byte{nil, []byte("x"), bytes.Repeat([]byte("ab"), MaxData/2)}
	for _, k := range []Kind{KindHello, KindOpen, KindRequest, KindReply, KindExit, KindStdin, KindStdout, KindStderr} {
		for _, want := range payloads {
			var b bytes.Buffer
			if err := WriteFrame(&b, k, want); err != nil {
				t.Fatal(err)
			}
			for name, r := range map[string]io.Reader{"whole": &b, "bytewise": iotest.OneByteReader(bytes.NewReader(b.Bytes()))} {
				got, p, err := ReadFrame(r, nil)
				if err != nil || got != k || !bytes.Equal(p, want) {
					t.Fatalf("%s: kind %d, %d bytes: got kind %d, %d bytes, %v", name, k, len(want), got, len(p), err)
				}
			}
		}
	}
}

func TestFrameLimits(t *testing.T) {
	tests := []struct {
		kind Kind
		size int
		ok   bool
	}{
		{KindStdout, MaxData, true}, {KindStdout, MaxData + 1, false},
		{KindRequest, MaxControl, true}, {KindRequest, MaxControl + 1, false},
		{KindReply, MaxReply, true}, {KindReply, MaxReply + 1, false},
		{KindExit, MaxReply + 1, false}, {KindHello, MaxReply + 1, false},
		{0, 0, false}, {6, 0, false}, {255, 0, false},
	}
	for _, tt := range tests {
		if err := WriteFrame(io.Discard, tt.kind, make([]byte, tt.size)); (err == nil) != tt.ok {
			t.Errorf("write kind %d size %d: %v", tt.kind, tt.size, err)
		}
		head := binary.BigEndian.AppendUint32([]byte{byte(tt.kind)}, uint32(tt.size))
		_, _, err := ReadFrame(io.MultiReader(bytes.NewReader(head), bytes.NewReader(make([]byte, tt.size))), nil)
		if (err == nil) != tt.ok {
			t.Errorf("read kind %d size %d: %v", tt.kind, tt.size, err)
		}
		if !tt.ok && !errors.Is(err, ErrFrame) {
			t.Errorf("kind %d: %v does not wrap ErrFrame", tt.kind, err)
		}
	}
}

func TestFrameCut(t *testing.T) {
	var b bytes.Buffer
	if err := WriteFrame(&b, KindStdout, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		_, _, err := ReadFrame(bytes.NewReader(b.Bytes()[:n]), nil)
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", n, err, want)
		}
	}
}

// A length that lies costs no more than the bytes that come.
func TestFrameLyingLength(t *testing.T) {
	head := binary.BigEndian.AppendUint32([]byte{byte(KindRequest)}, MaxControl)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 100
	for range n {
		if _, _, err := ReadFrame(bytes.NewReader(head), nil); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / n; got > 4*MaxData {
		t.Errorf("%d bytes allocated for a frame whose payload never came", got)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "0f3b": true, "web_1.x-y": true, strings.Repeat("a", MaxID): true,
		"": false, strings.Repeat("a", MaxID+1): false, ".x": false, "-x": false, "../../x": false,
		"a/b": false, "a b": false, "a\x00": false, "é": false,
	} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":            "plain text",
		"a\x1b[31mred\nb\r\t":   "a [31mred b  ",
		"bad \xff utf8":         "bad   utf8",
		"über\u202e\u200b":      "über  ",
		"0123456789abcdefghi":   "0123456789abcdef",
		"012345678901234\u00e9": "012345678901234",
	} {
		if got := Clean(in, 16); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCleanMessages(t *testing.T) {
	e := Error{Code: "root-shell", Phase: "\x1b]0;x", Message: strings.Repeat("m", 2*MaxError)}
	e.Clean()
	if e.Code != CodeInternal || strings.Contains(e.Phase, "\x1b") || len(e.Message) != MaxError {
		t.Errorf("error not cleaned: %q %q %d", e.Code, e.Phase, len(e.Message))
	}
	h := Hello{Kernel: strings.Repeat("k", 1<<12), Phases: make([]Phase, 1000)}
	h.Phases[0].At = -5
	h.Phases[1].At = math.MaxInt64
	h.Clean()
	if len(h.Kernel) != maxName || len(h.Phases) != maxPhases || h.Phases[0].At != 0 || h.Phases[1].At == math.MaxInt64 {
		t.Errorf("hello not cleaned: %+v", h)
	}
}

func TestExitCheck(t *testing.T) {
	now := time.Now()
	tests := []struct {
		e  Exit
		ok bool
	}{
		{Exit{ID: "a", Code: 0}, true}, {Exit{ID: "a", Code: 255}, true}, {Exit{ID: "a", Code: 137, Signal: 9}, true},
		{Exit{ID: "a", Code: 256}, false}, {Exit{ID: "a", Code: -1}, false}, {Exit{ID: "a", Code: 1 << 31}, false},
		{Exit{ID: "a", Signal: 65}, false}, {Exit{ID: "a", Signal: -1}, false}, {Exit{ID: "../x"}, false}, {Exit{}, false},
	}
	for _, tt := range tests {
		if err := tt.e.Check(now); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.e, err)
		}
	}
	far := Exit{ID: "a", At: now.Add(1000 * time.Hour)}
	if err := far.Check(now); err != nil || !far.At.Equal(now) {
		t.Errorf("exit time %v kept, %v", far.At, err)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, k := range []Kind{KindHello, KindReply, KindExit, KindStdout} {
		var b bytes.Buffer
		if err := WriteMessage(&b, k, Exit{ID: "x", Code: 3}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{byte(KindStdout), 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{byte(KindReply), 0, 0, 0, 2, '{', '}', byte(KindStdin), 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var out bytes.Buffer
		for {
			k, p, err := ReadFrame(r, nil)
			if err != nil {
				break
			}
			if limit, ok := k.limit(); !ok || len(p) > limit {
				t.Fatalf("kind %d with %d bytes let through", k, len(p))
			}
			if err := WriteFrame(&out, k, p); err != nil {
				t.Fatal(err)
			}
			decodeAll(p)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatal("frames do not reproduce their bytes")
		}
	})
}

func TestProcessesCheck(t *testing.T) {
	ok := Process{PID: 8, PPID: 1, UID: 4294967295, TTY: "pts/0\x1b", Command: strings.Repeat("c", MaxCommand+1)}
	good := ProcessesReply{Processes: []Process{ok}, More: true}
	if err := good.Check(ProcessesRequest{After: 7}); err != nil || good.Processes[0].TTY != "pts/0 " || len(good.Processes[0].Command) != MaxCommand {
		t.Errorf("%+v, %v", good, err)
	}
	end := ProcessesReply{}
	if err := end.Check(ProcessesRequest{After: 7}); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]ProcessesReply{
		"the same again": {Processes: []Process{{PID: 7}}}, "descending": {Processes: []Process{{PID: 9}, {PID: 8}}},
		"large": {Processes: []Process{{PID: 1<<22 + 1}}}, "parent": {Processes: []Process{{PID: 8, PPID: -1}}},
		"user": {Processes: []Process{{PID: 8, UID: 1 << 32}}}, "time": {Processes: []Process{{PID: 8, CPU: -1}}},
		"endless": {More: true},
	} {
		if err := r.Check(ProcessesRequest{After: 7}); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// decodeAll runs every decoder of guest messages over p; none may panic.
func decodeAll(p []byte) {
	var h Hello
	if Decode(p, &h) == nil {
		h.Clean()
	}
	var e Exit
	if Decode(p, &e) == nil {
		_ = e.Check(time.Now())
	}
	var ps ProcessesReply
	if Decode(p, &ps) == nil {
		_ = ps.Check(ProcessesRequest{})
	}
	var s StatsReply
	if Decode(p, &s) == nil {
		_ = s.Check()
	}
	var r Reply
	if Decode(p, &r) == nil && r.Error != nil {
		r.Error.Clean()
	}
}
