package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/micropod/micropod/test/kvmhost"
)

// kvmJob is what the part kvm measures with.
type kvmJob struct {
	Programs []string // micropod, firecracker, jailer and a static busybox
	Kernel   string   // directory with vmlinux
	Images   string   // OCI layout
	Rounds   int
	Cold     bool
}

// kvm measures runs on the real Firecracker. They are in an emulated machine
// whose clock counts instructions: no other work here shows there, and no time
// that is printed means anything, only the ratios.
func (b *bench) kvm() error {
	job, err := b.kvmJob()
	if err != nil {
		return err
	}
	if b.here {
		return b.kvmHere(job)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	show := []string{filepath.Dir(self), job.Kernel, job.Images}
	for _, p := range job.Programs {
		show = append(show, filepath.Dir(p))
	}
	host, err := kvmhost.Start(b.ctx, kvmhost.Options{VirtualClock: true, Show: show})
	if err != nil {
		return err
	}
	defer host.Close()
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	code, err := host.Run(b.ctx, kvmhost.Command{
		Args: []string{self, helperName, "kvm", string(text)}, Stdout: b.out, Stderr: os.Stderr,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("the measurement ended with %d; the host's console ends with:\n%s", code, host.Console())
	}
	return err
}

// kvmJob finds what the part needs.
func (b *bench) kvmJob() (kvmJob, error) {
	job := kvmJob{Programs: []string{b.bin}, Kernel: filepath.Dir(b.kernel), Images: b.images, Rounds: min(b.rounds, countRounds), Cold: b.cold}
	if job.Images == "" {
		return job, errors.New("no images: MICROPOD_TEST_IMAGES is not set (run scripts/test-setup.sh)")
	}
	for _, name := range []string{"firecracker", "jailer", "busybox"} {
		path := filepath.Join(os.Getenv("MICROPOD_TEST_FIRECRACKER"), name)
		if _, err := os.Stat(path); err != nil {
			if path, err = exec.LookPath(name); err != nil {
				return job, fmt.Errorf("%w (run scripts/test-setup.sh)", err)
			}
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return job, err
		}
		job.Programs = append(job.Programs, path)
	}
	return job, nil
}

// kvmHere measures on this machine.
func (b *bench) kvmHere(job kvmJob) error {
	if err := job.copyTo(b.dir); err != nil {
		return err
	}
	return b.measureKVM(job)
}

// kvmMain is the helper in the emulated machine.
func kvmMain(text string) error {
	var job kvmJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	if err := enterMemory(job); err != nil {
		return fmt.Errorf("make a root in memory: %w", err)
	}
	b := &bench{ctx: context.Background(), out: os.Stdout, dir: "/", rounds: job.Rounds, cold: job.Cold}
	return b.measureKVM(job)
}
