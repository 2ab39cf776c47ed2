package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/logfile"
	"github.com/micropod/micropod/pkg/state"
)

// RemoveLeftovers removes what a supervisor that was killed left in the file
// system. The caller holds the container's lock.
func RemoveLeftovers(p state.Paths) error {
	var errs []error
	for _, path := range leftovers(p) {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// Leftovers lists what RemoveLeftovers would remove, under the same condition.
func Leftovers(p state.Paths) []string {
	return slices.DeleteFunc(leftovers(p), func(path string) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// leftovers are the files that are there only while a VM runs, and those that its
// supervisor had not made to the end.
func leftovers(p state.Paths) []string {
	ready := fmt.Sprintf("%s_%d", p.Vsock(), api.ReadyPort)
	all := []string{p.Control(), p.Peer(), p.Vsock(), ready, p.Token(), p.VMM()}
	for _, path := range []string{p.Status(), p.Service(), p.Health()} {
		all = append(all, state.TempFiles(path)...)
	}
	for _, path := range []string{p.Log(), p.JSONLog()} {
		all = append(all, logfile.TempFiles(path)...)
	}
	return all
}
