package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLockWithin has a holder that does not come back by itself: who waits is told
// of it, and stands in nobody's way afterwards.
func TestLockWithin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := LockWithin(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.ExtraFiles = []*os.File{l.File()}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	l.Unlock()
	bystander, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer bystander.Close()

	want := fmt.Sprintf("for 1ms: process %d (cat)", child.Process.Pid)
	if _, err := LockWithin(t.Context(), path, time.Millisecond); !errors.Is(err, ErrLocked) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want …%s", err, want)
	}
	given := errors.New("given up")
	ctx, giveUp := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { giveUp(given) }) // whether it waits already or not
	if _, err := LockWithin(ctx, path, time.Hour); !errors.Is(err, given) {
		t.Errorf("%v, want %v", err, given)
	}
	got := make(chan error)
	for range 2 {
		go func() {
			l, err := LockWithin(t.Context(), path, time.Hour)
			if err == nil {
				err = l.Unlock()
			}
			got <- err
		}()
	}
	in.Close()
	child.Wait()
	for range 2 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}
