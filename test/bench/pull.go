package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// puller is what the contestants of the part pull share.
type puller struct {
	*bench
	subject
	ref  string
	peak int64 // of micropod and the merge, bytes
}

// pull compares the way from a registry to disks that a VM can use.
func (b *bench) pull() error {
	address, stop, err := b.registry()
	if err != nil {
		return err
	}
	defer stop()
	s, err := findSubject(b.layout, b.image)
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
	fmt.Fprintf(b.out, "peak memory of pull and merge: %.0f MB, %s\n", mb, verdict(mb, 128))
	return nil
}

// micropod pulls into an empty root, and merges the layers' indexes, which
// otherwise the first run does.
func (p *puller) micropod() (sample, error) {
	root := filepath.Join(p.dir, "root")
	defer os.RemoveAll(root)
	took, err := p.watched(p.command(p.bin, "--root", root, "pull", "--quiet", p.ref))
	if err != nil {
		return sample{}, err
	}
	cmd, err := p.helper(append([]string{"merge", root}, p.diffIDs...)...)
	if err != nil {
		return sample{}, err
	}
	merged, err := p.watched(cmd)
	return took.plus(merged), err
}

// watched is timed, and remembers the most memory that a process had.
func (p *puller) watched(cmd *exec.Cmd) (sample, error) {
	most := func() int64 { return 0 }
	took, err := timed(cmd, func() { most = peak(cmd.Process.Pid) })
	p.peak = max(p.peak, most())
	return took, err
}

// peak watches the largest resident size of a process, and returns it when the
// process has ended. What wait4 reports is no use: Linux counts what the process
// was before its exec, a copy of this one.
func peak(pid int) (get func() int64) {
	ended, result := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			most = max(most, residentPeak(pid))
			select {
			case <-ended:
				result <- most
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(ended)
		return <-result
	}
}

// residentPeak is VmHWM of proc(5) in bytes, 0 for a process that has ended.
func residentPeak(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kib int64
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmHWM: %d kB", &kib)
	}
	return kib << 10
}

func (p *puller) floor() (sample, error) {
	return p.help(append([]string{"floor"}, p.blobs...)...)
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
