// Command bench measures MicroPod against what does the same work by hand, and
// prints ratios: what is compared runs alternately, so that a machine that gets
// slower gets slower for all. scripts/bench.sh runs it; docs/benchmarks.md says
// what each line means.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/micropod/micropod/test/kvmhost/inside"
	"github.com/micropod/micropod/test/networld"
)

// bench is one run of the program.
type bench struct {
	ctx    context.Context
	bin    string // micropod
	kernel string
	layout string // OCI layout
	image  string // reference in it
	images string // OCI layout with small images
	here   bool   // the part kvm runs on this machine
	files  int    // of the part tiny
	rounds int
	cold   bool   // only to see that it works: no round to get warm, no sync
	parent string // where dir is made
	dir    string // for everything that is written
	out    io.Writer
}

func main() {
	inside.Main()
	if isHelper(os.Args) {
		exit(helperMain(os.Args[2:]))
	}
	// What networks leave on a host is not left on this one.
	if err := networld.Isolate(); err != nil {
		exit(err)
	}
	b := &bench{out: os.Stdout}
	flag.StringVar(&b.bin, "micropod", "./micropod", "the `program` to measure")
	flag.StringVar(&b.kernel, "kernel", os.Getenv("MICROPOD_TEST_KERNEL"), "guest kernel `file`")
	flag.StringVar(&b.layout, "layout", "", "OCI layout `directory` with the image")
	flag.StringVar(&b.image, "image", "big", "`reference` in the layout")
	flag.IntVar(&b.rounds, "rounds", 7, "how often each contestant runs")
	flag.IntVar(&b.files, "files", 300_000, "how many files the layer of tiny files has")
	// Not /tmp, which may be memory: what is measured goes to a disk.
	flag.StringVar(&b.parent, "dir", "/var/tmp", "`directory` on a disk, for everything that is written")
	flag.StringVar(&b.images, "images", os.Getenv("MICROPOD_TEST_IMAGES"), "OCI layout `directory` of the parts network and kvm")
	flag.BoolVar(&b.here, "here", false, "the part kvm: measure on this machine, with its own clock, not in an emulated one")
	flag.BoolVar(&b.cold, "quick", false, "only see that it works: nothing is run before to get warm")
	only := flag.String("only", "", "measure only this `part`: "+strings.Join(partNames(), ", "))
	flag.Parse()
	if flag.NArg() > 0 || b.layout == "" || b.kernel == "" || b.rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b.ctx = ctx
	exit(b.run(*only))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// part is one group of measurements.
type part struct {
	name string
	run  func(*bench) error
}

func parts() []part {
	return []part{{"pull", (*bench).pull}, {"tiny", (*bench).tiny}, {"boot", (*bench).boot}, {"network", (*bench).network}, {"kvm", (*bench).kvm}}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// run does the parts in a directory of their own.
func (b *bench) run(only string) (err error) {
	for _, p := range []*string{&b.bin, &b.kernel, &b.layout} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp(b.parent, "mpbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.describe(); err != nil {
		return err
	}
	found := false
	for _, p := range parts() {
		if only != "" && p.name != only {
			continue
		}
		found = true
		if err := p.run(b); err != nil {
			return fmt.Errorf("measure %s: %w", p.name, err)
		}
	}
	if !found {
		return fmt.Errorf("there is no part %q", only)
	}
	return nil
}

// describe prints where this runs: without it no number means anything.
func (b *bench) describe() error {
	version, err := b.output(b.bin, "--version")
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	qemu, err := b.output("qemu-system-x86_64", "--version")
	if err != nil {
		return err
	}
	qemu, _, _ = strings.Cut(qemu, "\n")
	fmt.Fprintf(b.out, "%s; %s; %d CPUs, load average %s; %d rounds\n", version, qemu, runtime.NumCPU(), bytes.Fields(load)[0], b.rounds)
	return nil
}

// command is a program that is ended with the benchmark.
func (b *bench) command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(b.ctx, name, args...)
}

// output runs a program; what it says on stderr is the error's text.
func (b *bench) output(name string, args ...string) (string, error) {
	cmd := b.command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
