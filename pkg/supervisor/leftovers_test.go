package supervisor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

func TestLeftovers(t *testing.T) {
	left := []string{
		"control.sock", "vsock.sock", "vsock.sock_1024", "token", "vmm",
		".status.json.tmp-1", ".service.json.tmp-2", ".health.json.tmp-3",
		"container.log.1.gz.tmp", "container-json.log.12.gz.tmp",
	}
	// A record that is whole tells the next command what to do, and a change of the
	// description has a lock of its own.
	kept := []string{
		"status.json", "service.json", "health.json", "config.json", ".config.json.tmp-4",
		"container.log", "container.log.1", "container.log.2.gz", "console.log", "rw.img",
	}
	p := state.Paths{Dir: t.TempDir()}
	for _, name := range append(left, kept...) {
		if err := os.WriteFile(filepath.Join(p.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var found []string
	for _, path := range Leftovers(p) {
		found = append(found, filepath.Base(path))
	}
	slices.Sort(found)
	slices.Sort(left)
	if !slices.Equal(found, left) {
		t.Errorf("found %v, want %v", found, left)
	}
	if err := RemoveLeftovers(p); err != nil || len(Leftovers(p)) != 0 {
		t.Errorf("remove: %v, left %v", err, Leftovers(p))
	}
	for _, name := range kept {
		if _, err := os.Stat(filepath.Join(p.Dir, name)); err != nil {
			t.Error(err)
		}
	}
}
