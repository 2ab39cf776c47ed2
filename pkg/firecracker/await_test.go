package firecracker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWatchDir: what is made after the call is told, also before somebody
// listens, and in the end no watch is left.
func TestWatchDir(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		made, stop := watchDir(dir)
		select {
		case <-made:
			t.Error("told of nothing")
		default:
		}
		for _, name := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			select {
			case <-made:
			case <-time.After(time.Minute):
				t.Fatalf("not told of %s", name)
			}
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		stop()
	}
	if made, stop := watchDir(filepath.Join(dir, "none")); made != nil {
		t.Error("a directory that is not there is watched")
	} else {
		stop()
	}
	if n := watches(t); n > 0 {
		t.Errorf("%d watches are left", n)
	}
}

// watches is how many descriptors of inotify this process has.
func watches(t *testing.T) int {
	t.Helper()
	n := 0
	for _, to := range openFiles(t) {
		if strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}
