package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// kvmRunner is what the measurements of the part kvm share. Everything that is
// read lies below its directory.
type kvmRunner struct {
	rooted
	kvmJob
	stay []int // supervisors whose containers run beside what is measured
}

// storedImage is the name under which the image is stored: a run looks nowhere else.
const storedImage = "measured"

// measureKVM does all measurements of the part kvm, on the machine that it is
// called on.
func (b *bench) measureKVM(job kvmJob) (err error) {
	if err := adopt(); err != nil {
		return err
	}
	r := &kvmRunner{rooted: rooted{bench: b, root: filepath.Join(b.dir, "root")}, kvmJob: job}
	defer func() { err = errors.Join(err, r.end()) }()
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"prepare", r.prepare},
		{"compare the first runs", r.firstRuns},
		{"compare with a script", r.compare},
		{"compare networks", r.networks},
		{"compare networks beside a container", r.networksBeside},
		{"compare ways to a guest", r.ways},
		{"count CPU time", r.cpuTime},
		{"start many", r.many},
		{"split a boot", r.split},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// prepare pulls the image. Only the copies of the programs are used.
func (r *kvmRunner) prepare() error {
	bin := filepath.Join(r.dir, "bin")
	r.bin = filepath.Join(bin, "micropod")
	if err := os.Setenv("PATH", bin); err != nil {
		return err
	}
	source := "oci:" + filepath.Join(r.dir, "images") + ":busybox"
	if _, err := r.micropod("pull", "--quiet", source); err != nil {
		return err
	}
	_, err := r.micropod("tag", source, storedImage)
	return err
}

// run is one of micropod's without a network, to the container's first line.
func (r *kvmRunner) run(flags ...string) (sample, error) { return r.runIn("none", flags...) }

// runIn is one of micropod's, to the container's first line.
func (r *kvmRunner) runIn(network string, flags ...string) (sample, error) {
	args := append(append([]string{"--root", r.root}, flags...), "run", "--rm", "--vmm", "firecracker", "--network", network, storedImage, "echo", strings.TrimSpace(ready))
	s, err := firstLine(r.command(r.bin, args...))
	if err != nil {
		return s, err
	}
	_, err = adopted(r.stay...)
	return s, err
}

// firstRuns compares the first runs of an image. The first one makes its disk
// and the initramfs.
func (r *kvmRunner) firstRuns() error {
	var runs []time.Duration
	for range 3 {
		s, err := r.run()
		if err != nil {
			return err
		}
		runs = append(runs, s.wall)
	}
	fmt.Fprintf(r.out, "\n== runs of an image that was pulled: first %.3f s, second %.3f s, third %.3f s\n", runs[0].Seconds(), runs[1].Seconds(), runs[2].Seconds())
	fmt.Fprintf(r.out, "third run / first run: %.2f\n", runs[2].Seconds()/runs[0].Seconds())
	return nil
}

const (
	byJail   = "micropod run --rm"
	byItself = "micropod --jailer=false run --rm"
	goesOn   = "micropod --templates run --rm"
	alone    = "micropod --templates --jailer=false run --rm"
	byHand   = "script with Firecracker and a trivial init"
)

// compare is micropod against a script, in turns.
func (r *kvmRunner) compare() error {
	script, err := r.writeScript()
	if err != nil {
		return err
	}
	cs := []contestant{
		{byJail, func() (sample, error) { return r.run() }},
		{byItself, func() (sample, error) { return r.run("--jailer=false") }},
		{goesOn, func() (sample, error) { return r.run("--templates") }},
		{alone, func() (sample, error) { return r.run("--templates", "--jailer=false") }},
		{byHand, func() (sample, error) { return r.byHand(script) }},
	}
	for _, c := range slices.Concat(cs[2:4], cs[2:4]) { // the second makes the template
		if _, err := c.run(); err != nil {
			return err
		}
	}
	samples, err := r.alternate(cs...)
	if err != nil {
		return err
	}
	last := len(cs) - 1
	fmt.Fprintf(r.out, "\n== from the command to the first line of output\n")
	for i, c := range cs {
		fmt.Fprintf(r.out, "%s: %s s\n", c.name, spreadBy(samples[i], wall).precise())
	}
	for i, c := range cs[:last] {
		ratio := ratio(samples[i], samples[last], wall)
		fmt.Fprintf(r.out, "%s / %s: %s; %s\n", c.name, byHand, ratio.precise(), verdict(ratio.median, 1.15))
	}
	return nil
}

// byHand runs the script. What Firecracker leaves is in its way the next time.
func (r *kvmRunner) byHand(script string) (sample, error) {
	s, err := firstLine(r.command("busybox", "sh", script))
	return s, errors.Join(err, os.Remove(filepath.Join(r.dir, "vsock")))
}

// writeScript makes a script that starts the Firecracker of a run with the same
// kernel and devices, on the disks that it had.
func (r *kvmRunner) writeScript() (string, error) {
	config, err := r.pattern()
	if err != nil {
		return "", err
	}
	initrd := filepath.Join(r.dir, "trivial.cpio")
	if err := writeTrivialInitramfs(initrd); err != nil {
		return "", err
	}
	if err := replace(config, "boot-source", "initrd_path", initrd); err != nil {
		return "", err
	}
	if err := replace(config, "vsock", "uds_path", filepath.Join(r.dir, "vsock")); err != nil {
		return "", err
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	file, script := filepath.Join(r.dir, "firecracker.json"), filepath.Join(r.dir, "boot.sh")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", err
	}
	return script, os.WriteFile(script, []byte("exec firecracker --no-api --config-file "+quote(file)+"\n"), 0o600)
}

// pattern is the configuration of a VM of micropod's, as Firecracker tells it.
func (r *kvmRunner) pattern() (map[string]any, error) {
	if _, err := r.micropod("--jailer=false", "run", "--detach", "--vmm", "firecracker", "--network", "none", "--name", "pattern", storedImage, "sleep", "1000"); err != nil {
		return nil, err
	}
	home, err := r.micropod("inspect", "--format", "{{.MicroPod.Dir}}", "pattern")
	if err != nil {
		return nil, err
	}
	config, err := vmConfig(r.ctx, filepath.Join(home, "vmm"))
	if err != nil {
		return nil, err
	}
	if _, err := r.micropod("kill", "pattern"); err != nil {
		return nil, err
	}
	_, err = adopted()
	return config, err
}

// replace sets a field of a part of a configuration, which must have it.
func replace(config map[string]any, part, field, value string) error {
	fields, ok := config[part].(map[string]any)
	if _, set := fields[field].(string); !ok || !set {
		return fmt.Errorf("firecracker's configuration has no %s of %s", field, part)
	}
	fields[field] = value
	return nil
}
