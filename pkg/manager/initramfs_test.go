package manager

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// What is taken into use is not removed before a VMM has opened it, however old
// it is; what nobody takes goes.
func TestInitramfsInUseIsNotExpired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), dirInitramfs)
	used, unused, booted := filepath.Join(dir, "used.cpio"), filepath.Join(dir, "unused.cpio"), filepath.Join(dir, "booted.cpio")
	if taken, err := takeInitramfs(used); taken || err != nil {
		t.Fatalf("took what is not there: %v, %v", taken, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, path := range []string{used, unused, booted, filepath.Join(dir, fileInitramfsLock)} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := takeInitramfs(used); !taken || err != nil {
		t.Fatalf("take: %v, %v", taken, err)
	}
	// A supervisor may boot from it again, whatever its age.
	hold, err := state.HoldShared(booted)
	if err != nil {
		t.Fatal(err)
	}
	if err := expire(dir); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{used: true, unused: false, booted: true, filepath.Join(dir, fileInitramfsLock): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
	if taken, err := takeInitramfs(unused); taken || err != nil {
		t.Errorf("took what is gone: %v, %v", taken, err)
	}
	if err := errors.Join(hold.Unlock(), expire(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(booted); err == nil {
		t.Error("what nobody holds any more is still there")
	}
}
