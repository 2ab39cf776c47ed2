package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, limit int64) *Journal {
	t.Helper()
	j, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j.limit = limit
	return j
}

func write(t *testing.T, j *Journal, e Event) {
	t.Helper()
	if err := j.Write(e); err != nil {
		t.Fatal(err)
	}
}

// epoch is a Since that asks for everything.
var epoch = time.Unix(0, 0)

// all reads what is there now.
func all(t *testing.T, j *Journal, since, until time.Time) []Event {
	t.Helper()
	var got []Event
	err := j.Read(t.Context(), Options{Since: since, Until: until}, func(e Event) error {
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func numbered(writer, n int) Event {
	return Container(ActionStart, Subject{ID: strconv.Itoa(writer), Name: "web"}, "n", strconv.Itoa(n))
}

func TestEvents(t *testing.T) {
	s := Subject{ID: "1", Name: "web", Image: "nginx", Labels: map[string]string{"a": "b", "exitCode": "label"}}
	e := Die(s, 3, 90*time.Second)
	want := map[string]string{"a": "b", "exitCode": "3", "execDuration": "90", "name": "web", "image": "nginx"}
	if e.Type != TypeContainer || e.Action != ActionDie || fmt.Sprint(e.Attributes) != fmt.Sprint(want) {
		t.Errorf("%+v", e)
	}
	if s.Labels["exitCode"] != "label" {
		t.Error("the labels of the caller were changed")
	}
	health := Container(ActionHealthStatus+": healthy", s)
	if !health.Is(ActionHealthStatus) || !health.Is("health_status: healthy") || health.Is("health") || e.Is(ActionStart) {
		t.Error("Is")
	}
}

func TestSinceAndUntil(t *testing.T) {
	j := open(t, 1<<20)
	if got := all(t, j, epoch, time.Now()); len(got) > 0 {
		t.Errorf("an empty journal: %v", got)
	}
	for n := range 3 {
		write(t, j, numbered(0, n))
	}
	got := all(t, j, epoch, time.Now())
	if len(got) != 3 || got[0].Attributes["n"] != "0" || got[2].Attributes["n"] != "2" {
		t.Fatalf("%v", got)
	}
	middle := all(t, j, got[1].Time, got[2].Time)
	if len(middle) != 1 || middle[0].Attributes["n"] != "1" {
		t.Errorf("since the second until before the third: %v", middle)
	}
	if got := all(t, j, time.Time{}, time.Now()); len(got) > 0 {
		t.Errorf("from now until now: %v", got)
	}
}

// TestFollow has several writers rotate the journal many times under a reader
// that starts before the journal is there.
func TestFollow(t *testing.T) {
	const writers, each = 4, 200
	j := open(t, 8<<10)
	var wg sync.WaitGroup
	seen := make([]int, writers)
	taken := make(chan struct{}, 1)
	var last time.Time
	begun := make(chan struct{})
	wg.Go(func() {
		total := 0
		close(begun)
		err := j.Read(t.Context(), Options{Since: epoch}, func(e Event) error {
			w, _ := strconv.Atoi(e.ID)
			if n, _ := strconv.Atoi(e.Attributes["n"]); n != seen[w] {
				t.Errorf("writer %d: event %d instead of %d", w, n, seen[w])
				return errors.New("out of order")
			}
			if e.Time.Before(last) {
				t.Errorf("%v came after %v", e.Time, last)
			}
			seen[w]++
			last = e.Time
			taken <- struct{}{}
			if total++; total == writers*each {
				return errEnd
			}
			return nil
		})
		close(taken)
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	// The writers keep to what a file and its predecessor hold: a reader that is
	// further behind loses events, as it should.
	ahead := make(chan struct{}, 20)
	go func() {
		for range taken {
			<-ahead
		}
	}()
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				ahead <- struct{}{}
				if err := j.Write(numbered(w, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, path := range []string{j.path, rotated(j.path)} {
		if st, err := os.Stat(path); err == nil && st.Size() > 9<<10 {
			t.Errorf("%s has %d bytes", path, st.Size())
		}
	}
	if _, err := os.Stat(rotated(j.path)); err != nil {
		t.Errorf("it was never rotated: %v", err)
	}
}

func TestFollowFromNow(t *testing.T) {
	j := open(t, 1<<20)
	write(t, j, numbered(0, 0))
	r := &reader{j: j, each: func(e Event) error {
		if e.Attributes["n"] != "1" {
			t.Errorf("%v", e)
		}
		return errEnd
	}}
	defer r.close()
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	write(t, j, numbered(0, 1))
	if err := r.pass(); !errors.Is(err, errEnd) {
		t.Error(err)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	j := open(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	write(t, j, numbered(0, 0))
	err := j.Read(ctx, Options{Since: epoch}, func(Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTornLine damages the end of the journal as a crash or a full disk does.
func TestTornLine(t *testing.T) {
	for _, torn := range []string{`{"time":"2026-01-02T15:0`, "\x00\x00\x00", `{}`, `[1,2]`, strings.Repeat("x", 3*maxLine)} {
		j := open(t, 1<<20)
		write(t, j, numbered(0, 0))
		f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(torn)
		f.Close()
		write(t, j, numbered(0, 1))
		got := all(t, j, epoch, time.Now())
		if len(got) != 2 || got[1].Attributes["n"] != "1" {
			t.Errorf("after %.20q: %v", torn, got)
		}
	}
}

func TestLongEvents(t *testing.T) {
	j := open(t, 1<<20)
	long := strings.Repeat("x", maxLine)
	s := Subject{ID: "1", Name: "web", Image: "nginx", Labels: map[string]string{"l": long}}
	write(t, j, Container(ActionExecStart+": "+Action(long), s, "execID", "2"))
	got := all(t, j, epoch, time.Now())
	if len(got) != 1 || !got[0].Is(ActionExecStart) || got[0].ID != "1" ||
		got[0].Attributes["name"] != "web" || got[0].Attributes["execID"] != "2" || got[0].Attributes["l"] != "" {
		t.Errorf("%.200v", got)
	}
}

// TestLockIsNotWaitedForForever keeps the lock as a stopped process does.
func TestLockIsNotWaitedForForever(t *testing.T) {
	j := open(t, 1<<20)
	write(t, j, numbered(0, 0))
	f, err := os.Open(j.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	write(t, j, numbered(0, 1))
	if got := all(t, j, epoch, time.Now()); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestWriteSaysWhatIsWrong(t *testing.T) {
	j := open(t, 1<<20)
	if err := os.RemoveAll(filepath.Dir(j.path)); err != nil {
		t.Fatal(err)
	}
	if err := j.Write(numbered(0, 0)); err == nil || !strings.Contains(err.Error(), "write event") {
		t.Errorf("%v", err)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T15:04:05Z","type":"container","action":"start","id":"1"}`+"\n"), 7)
	f.Add([]byte("\n\n{}\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		r := &reader{each: func(e Event) error {
			if e.Type == "" || e.Action == "" {
				t.Errorf("%+v", e)
			}
			return nil
		}}
		for piece = max(piece, 1); len(b) > 0; {
			n := min(piece, len(b))
			if err := r.lines(bytes.Clone(b[:n])); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
			if len(r.pending) > maxLine {
				t.Fatalf("%d bytes wait for the end of a line", len(r.pending))
			}
		}
	})
}
