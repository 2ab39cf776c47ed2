package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/test/kvmhost/inside"
	"github.com/micropod/micropod/test/networld"
)

// TestMain lets the test binary help itself, as the program does.
func TestMain(m *testing.M) {
	inside.Main()
	if isHelper(os.Args) {
		exit(helperMain(os.Args[2:]))
	}
	if err := networld.Isolate(); err != nil {
		exit(err)
	}
	os.Exit(m.Run())
}

// TestBench goes through the measurements once, with the smallest image. What
// comes out is a number; which one is no test's business. The part kvm needs a
// KVM: test/firecracker goes through it.
func TestBench(t *testing.T) {
	kernel, images := os.Getenv("MICROPOD_TEST_KERNEL"), os.Getenv("MICROPOD_TEST_IMAGES")
	if kernel == "" || images == "" || testing.Short() {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES must name a guest kernel and an OCI layout")
		}
		t.Skip("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES do not name a guest kernel and an OCI layout (make test does)")
	}
	// On a disk: nothing is written to what lies in memory.
	parent, err := os.MkdirTemp("/var/tmp", "benchtest")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	var out strings.Builder
	b := &bench{
		ctx: t.Context(), out: &out, parent: parent, bin: build(t), kernel: kernel,
		layout: images, images: images, image: "busybox", files: 2000, rounds: 1, cold: true,
	}
	for _, part := range []string{"pull", "tiny", "boot", "network"} {
		if err := b.run(part); err != nil {
			t.Fatal(err)
		}
	}
	lines := []string{
		`micropod pull / gunzip \+ sha256, same library, all CPUs`, `micropod pull / umoci unpack, mke2fs -d`,
		`peak memory of pull and merge:`, `micropod run --rm / script with QEMU and a trivial init`,
		`micropod --templates=false run --rm / script with QEMU and a trivial init`,
		`to the container's command:`, `to the end of the trivial init:`, `ratio of the least:`,
		`written by all its processes:`, `more space used below the root:`, `peak memory of pull and merge, 2000 files:`,
	}
	if os.Geteuid() == 0 {
		lines = append(lines, `bare TAP`, `bridge`, `published port of a bridge`, `user mode`, `bridge / bare TAP`,
			`run --network bridge / run --network none`, `run --network user / run --network none`)
	}
	for _, line := range lines {
		m := regexp.MustCompile(`(?m)^` + line + ` +([0-9.]+).*$`).FindStringSubmatch(out.String())
		if m == nil || strings.Trim(m[1], "0.") == "" {
			t.Errorf("no number for %q: %q", line, m)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "micropod")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/micropod").CombinedOutput(); err != nil {
		t.Fatalf("build micropod: %v\n%s", err, out)
	}
	return bin
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1}, spread{1, 2.5, 4}},
		{[]float64{9, 1, 5}, spread{1, 5, 9}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.values, got, tt.want)
		}
	}
}

// A machine that gets slower changes no ratio.
func TestRatioIsTakenRoundByRound(t *testing.T) {
	times := func(s ...int) (all []sample) {
		for _, n := range s {
			all = append(all, sample{wall: time.Duration(n) * time.Second})
		}
		return all
	}
	if got, want := ratio(times(2, 20, 200), times(1, 10, 100), wall), (spread{2, 2, 2}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		value, target float64
		want          string
	}{{1.4, 1.4, "at most 1.4: met"}, {1.41, 1.4, "at most 1.4: missed"}, {7, 0, ""}} {
		if got := verdict(tt.value, tt.target); got != tt.want {
			t.Errorf("verdict(%g, %g) = %q, want %q", tt.value, tt.target, got, tt.want)
		}
	}
}

func TestCPUBelowCountsDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", `(while :; do :; done) & echo $!; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := make([]byte, 16)
	n, err := out.Read(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		exec.Command("kill", "-9", strings.TrimSpace(string(pid[:n]))).Run()
		cmd.Wait()
	}()
	for end := time.Now().Add(time.Minute); ; {
		used, err := cpuBelow(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if used > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a grandchild that only computes has no CPU time")
		}
	}
}
