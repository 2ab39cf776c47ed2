package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// countingQEMU is a QEMU that executes one instruction a nanosecond of the
// guest's clock, whatever the machine is busy with. Its counter has that
// frequency too, not the one of the host.
const countingQEMU = `#!/bin/sh
qemu=%s
[ "$1" != --version ] || exec "$qemu" --version
for a; do
	shift
	a=$(printf '%%s' "$a" | sed 's/^tcg,thread=multi$/tcg,thread=single/; s/tsc_early_khz=[0-9]*/tsc_early_khz=1000000/')
	set -- "$@" "$a"
done
exec "$qemu" "$@" -icount shift=0,sleep=off
`

// countRounds are enough for what hardly varies.
const countRounds = 3

// instructions counts what the guest executes from the start of its kernel to
// the container's command, against the same for the trivial init. While a guest
// waits for a disk its clock jumps, so that the least of the rounds is the result.
func (r *booter) instructions() error {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return err
	}
	dir := filepath.Join(r.dir, "counting")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	wrapper := filepath.Join(dir, "qemu-system-x86_64")
	if err := os.WriteFile(wrapper, fmt.Appendf(nil, countingQEMU, quote(qemu)), 0o700); err != nil {
		return err
	}
	var full, bare []float64
	for range min(r.rounds, countRounds) {
		f, err := r.countRun(dir)
		if err != nil {
			return err
		}
		b, err := r.countBare(wrapper, qemu)
		if err != nil {
			return err
		}
		full, bare = append(full, float64(f)/1e6), append(bare, float64(b)/1e6)
	}
	f, b := spreadOf(full), spreadOf(bare)
	fmt.Fprintf(r.out, "\n== instructions of the guest from the start of its kernel, in millions: least (median, most)\n")
	fmt.Fprintf(r.out, "to the container's command: %.0f (%.0f, %.0f)\n", f.least, f.median, f.most)
	fmt.Fprintf(r.out, "to the end of the trivial init: %.0f (%.0f, %.0f)\n", b.least, b.median, b.most)
	fmt.Fprintf(r.out, "ratio of the least: %.2f\n", f.least/b.least)
	return nil
}

// countRun is micropod's: the agent says when it executes the command.
func (r *booter) countRun(dir string) (time.Duration, error) {
	const name = "counted"
	cmd := r.command(r.bin, "--debug", "--templates=false", "--root", r.root, "run", "--vmm", "qemu", "--network", "none", "--name", name, r.source(), "echo", strings.TrimSpace(ready))
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if _, err := firstLine(cmd); err != nil {
		return 0, err
	}
	if _, err := adopted(); err != nil {
		return 0, err
	}
	home, err := r.micropod("inspect", "--format", "{{.MicroPod.Dir}}", name)
	if err != nil {
		return 0, err
	}
	log, err := os.ReadFile(filepath.Join(home, "supervisor.log"))
	if err != nil {
		return 0, err
	}
	if _, err := r.micropod("rm", name); err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`guest phase done" phase=exec at=(\S+)`).FindSubmatch(log)
	if m == nil {
		return 0, fmt.Errorf("the guest has not said when it executed the command: %s", log)
	}
	return time.ParseDuration(string(m[1]))
}

// countBare is the script's: the kernel says when it restarts.
func (r *booter) countBare(wrapper, qemu string) (time.Duration, error) {
	script, err := os.ReadFile(r.script)
	if err != nil {
		return 0, err
	}
	text := strings.ReplaceAll(string(script), quote(qemu), quote(wrapper))
	out, err := r.output("sh", "-c", text)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`\[ *([0-9.]+)\] reboot: `).FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("the kernel has not said when it restarts: %s", out)
	}
	return time.ParseDuration(m[1] + "s")
}
