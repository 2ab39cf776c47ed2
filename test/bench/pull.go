package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/rootfs"
)

// puller is what the contestants of the part pull share.
type puller struct {
	*bench
	subject
	ref  string
	peak int64 // of micropod, bytes
}

// pull compares the way from a registry to disks that a VM can use.
func (b *bench) pull() error {
	address, stop, err := b.registry()
	if err != nil {
		return err
	}
	defer stop()
	s, err := b.subject()
	if err != nil {
		return err
	}
	p := &puller{bench: b, subject: s, ref: address + "/" + b.image + ":latest"}
	cs := []contestant{
		{"micropod pull", p.micropod},
		{"gunzip + sha256, same library, all CPUs", p.floor},
		{"gunzip | sha256sum, one layer after the other", p.pipes},
		{"umoci unpack, mke2fs -d", p.umoci},
	}
	samples, err := b.alternate(cs...)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n== from a registry to disks: %d layers, %.1f MB compressed\n", len(s.blobs), float64(s.compressed)/1e6)
	if err := b.report(cs, samples, []float64{1.4, 0, 0.5}); err != nil {
		return err
	}
	mb := float64(p.peak) / 1e6
	fmt.Fprintf(b.out, "peak memory of micropod pull: %.0f MB, %s\n", mb, verdict(mb, 128))
	return nil
}

// micropod pulls into an empty root, and merges the layers' indexes, which
// otherwise the first run does.
func (p *puller) micropod() (sample, error) {
	root := filepath.Join(p.dir, "root")
	defer os.RemoveAll(root)
	cmd := p.command(p.bin, "--root", root, "pull", "--quiet", p.ref)
	took, err := timed(cmd)
	if err != nil {
		return sample{}, err
	}
	peak, err := peakOf(cmd)
	if err != nil {
		return sample{}, err
	}
	p.peak = max(p.peak, peak)
	begun := time.Now()
	store, err := rootfs.Open(filepath.Join(root, "rootfs"), rootfs.Options{})
	if err != nil {
		return sample{}, err
	}
	_, err = store.EnsureImage(p.ctx, p.diffIDs, rootfs.EROFS)
	merge := time.Since(begun)
	return took.plus(sample{merge, merge}), err
}

// peakOf is the largest resident size of a process that has ended. Linux counts
// what the process was before its exec too, so it says nothing about a child
// that stays smaller than its parent.
func peakOf(cmd *exec.Cmd) (int64, error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	child := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if child.Maxrss <= own.Maxrss {
		return 0, fmt.Errorf("the memory of %s cannot be told: this process has %d KiB, more than its %d", cmd.Path, own.Maxrss, child.Maxrss)
	}
	return child.Maxrss << 10, nil
}

func (p *puller) floor() (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	return timed(p.command(self, append([]string{floorVerb}, p.blobs...)...))
}

func (p *puller) pipes() (sample, error) {
	script := `for f; do gunzip <"$f" | sha256sum >/dev/null; done`
	return timed(p.command("sh", append([]string{"-ec", script, "sh"}, p.blobs...)...))
}

// umoci is the way without MicroPod, from a layout that is on the disk already:
// unpack as files, in memory where there is room, then copy the files into a
// file system.
func (p *puller) umoci() (sample, error) {
	dir, err := os.MkdirTemp(p.memory(), "mpbench")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(dir)
	args := []string{"unpack", "--image", p.layout + ":" + p.image, dir + "/bundle"}
	if os.Getuid() != 0 {
		args = append(args, "--rootless")
	}
	took, err := timed(p.command("umoci", args...))
	if err != nil {
		return sample{}, err
	}
	disk := filepath.Join(p.dir, "disk.ext4")
	defer os.Remove(disk)
	more, err := timed(p.command("mke2fs", "-q", "-t", "ext4", "-d", dir+"/bundle/rootfs", disk, "2g"))
	return took.plus(more), err
}

// memory is a directory in memory with room for the files of an image, or else
// one on a disk: it is there for a contestant's best.
func (b *bench) memory() string {
	const room = 2 << 30
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) == nil && st.Type == unix.TMPFS_MAGIC && int64(st.Bavail)*st.Bsize >= room {
		return "/dev/shm"
	}
	return b.dir
}
