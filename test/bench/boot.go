package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ready is the line that every guest prints first.
const ready = "ready\n"

// booter is what the contestants of the part boot share. Its root has the image
// and the kernel, and was used before.
type booter struct {
	rooted
	script string // starts the same QEMU by hand
}

// boot compares micropod run with a script that starts the same QEMU, and
// counts what a run writes.
func (b *bench) boot() (err error) {
	if err := adopt(); err != nil {
		return err
	}
	r := &booter{rooted: rooted{bench: b, root: filepath.Join(b.dir, "boot")}}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.prepare(); err != nil {
		return err
	}
	cs := []contestant{{"micropod run --rm", r.run}, {"script with QEMU and a trivial init", r.bare}, {"micropod --templates=false run --rm", r.boot}}
	samples, err := b.alternate(cs...)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n== from the command to the first line of output\n")
	if err := b.report(cs, samples, []float64{1.25, 0}); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n== the same, when micropod boots the kernel too\n")
	slices.Reverse(cs[1:])
	slices.Reverse(samples[1:])
	if err := b.report(cs[1:], samples[1:], []float64{0}); err != nil {
		return err
	}
	if err := r.instructions(); err != nil {
		return err
	}
	return r.secondRun()
}

// prepare makes a root in which containers have run: all disks are made, all
// files are in memory, and the VMs of templates have theirs. The first container's
// QEMU, which boots the kernel, is what the script repeats.
func (r *booter) prepare() error {
	if err := os.Mkdir(r.root, 0o700); err != nil {
		return err
	}
	if err := os.Symlink(r.kernel, filepath.Join(r.root, "vmlinux")); err != nil {
		return err
	}
	if _, err := r.micropod("pull", "--quiet", r.source()); err != nil {
		return err
	}
	if _, err := r.micropod("--templates=false", "run", "--detach", "--vmm", "qemu", "--network", "none", "--name", "pattern", r.source(), "sleep", "1000"); err != nil {
		return err
	}
	pid, err := r.micropod("inspect", "--format", "{{.State.Pid}}", "pattern")
	if err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil {
		return err
	}
	if _, err := r.micropod("kill", "pattern"); err != nil {
		return err
	}
	if _, err := adopted(); err != nil {
		return err
	}
	if err := r.writeScript(strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")); err != nil || r.cold {
		return err
	}
	for range 2 { // the second makes the template
		if _, err := r.run(); err != nil {
			return err
		}
	}
	return nil
}

func (r *booter) source() string { return "oci:" + r.layout + ":" + r.image }

// writeScript repeats a QEMU of micropod's, with the same kernel and devices, on
// the disks that it had. The channels that micropod has are nothing, and the
// console is the output.
func (r *booter) writeScript(argv []string) error {
	initrd := filepath.Join(r.dir, "trivial.cpio")
	if err := writeTrivialInitramfs(initrd); err != nil {
		return err
	}
	own := regexp.MustCompile(`^(socket,id=\w+|file,id=console),.*`)
	script := "exec"
	for i := 0; i < len(argv); i++ {
		switch arg := argv[i]; {
		case arg == "-add-fd" || arg == "-mon":
			i++
			continue
		case arg == "-initrd":
			i++
			script += " -initrd " + quote(initrd)
			continue
		case strings.HasPrefix(arg, "file,id=console,"):
			script += " stdio,id=console"
		case own.MatchString(arg):
			script += " " + quote("null,"+regexp.MustCompile(`id=\w+`).FindString(arg))
		default:
			script += " " + quote(arg)
		}
	}
	r.script = filepath.Join(r.dir, "boot.sh")
	return os.WriteFile(r.script, []byte(script+"\n"), 0o600)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (r *booter) run() (sample, error)  { return r.runWith("--templates=true") }
func (r *booter) boot() (sample, error) { return r.runWith("--templates=false") }

func (r *booter) runWith(flag string) (sample, error) {
	s, err := firstLine(r.command(r.bin, flag, "--root", r.root, "run", "--rm", "--vmm", "qemu", "--network", "none", r.source(), "echo", strings.TrimSpace(ready)))
	if err != nil {
		return s, err
	}
	_, err = adopted()
	return s, err
}

func (r *booter) bare() (sample, error) { return firstLine(r.command("sh", r.script)) }

// firstLine runs a command until it ends. The sample is what passed until the
// line ready: a kernel may have complained on the console before.
func firstLine(cmd *exec.Cmd) (sample, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	var s sample
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text()+"\n" == ready && s.wall == 0 {
			s.wall = time.Since(begun)
			s.cpu, err = cpuBelow(os.Getpid())
		}
		said = append(said, lines.Text())
	}
	if err = errors.Join(err, cmd.Wait()); err != nil || s.wall == 0 {
		return s, fmt.Errorf("%s said %q: %v\n%s", filepath.Base(cmd.Path), said, err, stderr.String())
	}
	return s, nil
}

// secondRun counts what one more run of an image writes, in two ways: what the
// kernel charged to the processes, and what the files below the root occupy
// afterwards, when the container is kept.
func (r *booter) secondRun() error {
	size, err := r.imageSize()
	if err != nil {
		return err
	}
	before, err := blocks(r.root)
	if err != nil {
		return err
	}
	cmd := r.command(r.bin, "--root", r.root, "run", "--vmm", "qemu", "--network", "none", r.source(), "echo", strings.TrimSpace(ready))
	if _, err := firstLine(cmd); err != nil {
		return err
	}
	others, err := adopted()
	if err != nil {
		return err
	}
	charged := others.written + written(cmd.ProcessState.SysUsage().(*syscall.Rusage))
	after, err := blocks(r.root)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "\n== what a second run writes; the image has %.1f MB\n", float64(size)/1e6)
	for _, l := range []struct {
		what  string
		bytes int64
	}{{"written by all its processes", charged}, {"more space used below the root", after - before}} {
		percent := 100 * float64(l.bytes) / float64(size)
		fmt.Fprintf(r.out, "%s: %.2f MB, %.3f%% of the image, %s\n", l.what, float64(l.bytes)/1e6, percent, verdict(percent, 0.5))
	}
	return nil
}

// imageSize is the size of the image's files, as micropod says.
func (r *booter) imageSize() (size int64, err error) {
	text, err := r.micropod("image", "inspect", "--format", "{{.Size}}", r.source())
	if err == nil {
		_, err = fmt.Sscan(text, &size)
	}
	return size, err
}

// blocks is how many bytes the files below dir occupy.
func blocks(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}
