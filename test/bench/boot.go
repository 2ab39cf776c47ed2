package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ready is the line that every guest prints first.
const ready = "ready\n"

// booter is what the contestants of the part boot share.
type booter struct {
	*bench
	root   string // with the image and the kernel, used before
	script string // starts the same QEMU by hand
}

// boot compares micropod run with a script that starts the same QEMU, and
// counts what a run writes.
func (b *bench) boot() (err error) {
	// Supervisors outlive the command that started them; what they cost comes
	// to their new parent.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	r := &booter{bench: b, root: filepath.Join(b.dir, "boot")}
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
	if _, err := r.micropod("--templates=false", "run", "--detach", "--vmm", "qemu", "--name", "pattern", r.source(), "sleep", "1000"); err != nil {
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

// end removes all containers. A command that was killed half-way has left its VM
// running, so this is done after an interrupt too.
func (r *booter) end() error {
	ids, err := exec.Command(r.bin, "--root", r.root, "list", "-aq", "--no-trunc").Output()
	if err != nil {
		return fmt.Errorf("list what is left: %w", err)
	}
	for id := range strings.FieldsSeq(string(ids)) {
		if out, err := exec.Command(r.bin, "--root", r.root, "rm", "-f", id).CombinedOutput(); err != nil {
			return fmt.Errorf("remove what is left: %w\n%s", err, out)
		}
	}
	_, err = adopted()
	return err
}

func (r *booter) source() string { return "oci:" + r.layout + ":" + r.image }

func (r *booter) micropod(args ...string) (string, error) {
	return r.output(r.bin, append([]string{"--root", r.root}, args...)...)
}

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
	s, err := firstLine(r.command(r.bin, flag, "--root", r.root, "run", "--rm", "--vmm", "qemu", r.source(), "echo", strings.TrimSpace(ready)))
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

// cpuBelow is the CPU time so far of all descendants of a process, those that
// they have waited for included.
func cpuBelow(top int) (time.Duration, error) {
	parents, ticks, err := processes()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range parents {
		for p := parents[pid]; p != 0; p = parents[p] {
			if p == top {
				sum += ticks[pid]
				break
			}
		}
	}
	return time.Duration(sum) * (time.Second / userHZ), nil
}

const userHZ = 100 // of all architectures that MicroPod knows, proc(5)

// processes reads the parent and the CPU time of every process.
func processes() (parents map[int]int, ticks map[int]int64, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	parents, ticks = map[int]int{}, map[int]int64{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		// After the program's name: state, parent, …; utime is field 14.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil || len(fields) < 15 {
			return nil, nil, fmt.Errorf("%s: %q", name, b)
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, f := range fields[11:15] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			ticks[pid] += n
		}
	}
	return parents, ticks, err
}

// written is how many bytes a process, and those that it waited for, made dirty
// in the pages of files on disks.
func written(r *syscall.Rusage) int64 { return r.Oublock * 512 }

// adopted waits for the supervisors that have become children of this process,
// and returns what they and their VMMs have written.
func adopted() (sum int64, err error) {
	for {
		var r syscall.Rusage
		switch _, err := syscall.Wait4(-1, nil, 0, &r); {
		case err == nil:
			sum += written(&r)
		case errors.Is(err, syscall.ECHILD):
			return sum, nil
		case !errors.Is(err, syscall.EINTR):
			return sum, fmt.Errorf("wait for supervisors: %w", err)
		}
	}
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
	cmd := r.command(r.bin, "--root", r.root, "run", "--vmm", "qemu", r.source(), "echo", strings.TrimSpace(ready))
	if _, err := firstLine(cmd); err != nil {
		return err
	}
	charged, err := adopted()
	if err != nil {
		return err
	}
	charged += written(cmd.ProcessState.SysUsage().(*syscall.Rusage))
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
