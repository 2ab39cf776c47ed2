package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/micropod/micropod/pkg/rootfs"
)

// helperName is what this program is called when it helps itself: what is timed
// runs in a process of its own, as micropod does.
const helperName = "bench-helper"

func isHelper(args []string) bool { return len(args) > 2 && args[1] == helperName }

// helperMain does the work that args name.
func helperMain(args []string) error {
	switch verb, args := args[0], args[1:]; {
	case verb == "floor":
		return floorMain(args)
	case verb == "merge" && len(args) > 1:
		return merge(args[0], args[1:])
	case verb == "tiny" && len(args) == 2:
		files, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return writeTiny(args[0], files)
	case verb == "kvm" && len(args) == 1:
		return kvmMain(args[0])
	}
	return fmt.Errorf("unknown help %q", args)
}

// helper is this program as its own helper.
func (b *bench) helper(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.command(self, append([]string{helperName}, args...)...), nil
}

// help runs a helper from its start to its end.
func (b *bench) help(args ...string) (sample, error) {
	cmd, err := b.helper(args...)
	if err != nil {
		return sample{}, err
	}
	return timed(cmd)
}

// merge makes the disk of an image whose layers a root has.
func merge(root string, diffIDs []string) error {
	store, err := rootfs.Open(filepath.Join(root, "rootfs"), rootfs.Options{})
	if err != nil {
		return err
	}
	_, err = store.EnsureImage(context.Background(), diffIDs, rootfs.EROFS)
	return err
}
