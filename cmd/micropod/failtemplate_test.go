package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestFirecrackerFailpoints kills the supervisor while Firecracker makes a
// template, in a jail where there is one. Package test/firecracker runs it, in a
// machine with KVM and without a compiler.
func TestFirecrackerFailpoints(t *testing.T) {
	bin := os.Getenv("MICROPOD_TEST_FAILPOINTS")
	if bin == "" {
		t.Skip("MICROPOD_TEST_FAILPOINTS names no program with fail points (make test-firecracker does)")
	}
	image := startRegistry(t, os.Getenv("MICROPOD_TEST_IMAGES")) + "/busybox:latest"
	template := templateRoot(t, bin, os.Getenv("MICROPOD_TEST_KERNEL"), strings.TrimSuffix(image, "/busybox:latest"))
	out, err := exec.Command(bin, "failpoints").Output()
	if err != nil {
		t.Fatalf("list fail points: %v", err)
	}
	s := newSweep(t, bin, template, image)
	run := []string{"--templates", "run", "--vmm", "firecracker", "--name", "box"}
	s.ok(append(run, "--rm", image, "true")...) // the next one makes the template
	s.run(death{name: "template", inSupervisor: true, command: append(slices.Clone(run), "IMAGE", "true"),
		points: slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return !strings.HasPrefix(p, "firecracker.") }),
		mend:   []string{"system", "check", "--repair"}})
	if len(s.swept) < 3 {
		t.Errorf("swept only %q", s.swept)
	}
	s.ok(append(run, "--rm", image, "true")...)
	s.settled()
}
