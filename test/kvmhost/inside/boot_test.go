package inside

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The clock that the kernel begins with is not the one that is waited for.
func TestAwaitClock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	if err := awaitClock(file); err == nil {
		t.Error("no error where the kernel tells of no clock")
	}
	if err := os.WriteFile(file, []byte("tsc-early\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- awaitClock(file) }()
	next := filepath.Join(filepath.Dir(file), "next")
	if err := os.WriteFile(next, []byte("tsc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("went on with the early clock: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
