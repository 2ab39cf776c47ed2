package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

func TestCgroupLimits(t *testing.T) {
	c := vmm.Config{CPUs: 2, MemoryMiB: 256}
	// 256 MiB of the guest, 64 for the VMM, 2 for page tables.
	const memory = "337641472"
	for _, tt := range []struct {
		controller string
		v2         bool
		want       string
	}{
		{"memory", true, "[{memory.max " + memory + " false} {memory.swap.max 0 true}]"},
		{"memory", false, "[{memory.limit_in_bytes " + memory + " false} {memory.memsw.limit_in_bytes " + memory + " true}]"},
		{"cpu", true, "[{cpu.max 300000 100000 false}]"},
		{"cpu", false, "[{cpu.cfs_period_us 100000 false} {cpu.cfs_quota_us 300000 false}]"},
		{"pids", true, "[{pids.max 34 false}]"},
		{"pids", false, "[{pids.max 34 false}]"},
	} {
		if got := fmt.Sprint(limits(c, tt.controller, tt.v2)); got != tt.want {
			t.Errorf("%s, v2 %v: %s, want %s", tt.controller, tt.v2, got, tt.want)
		}
	}
}

func TestHierarchies(t *testing.T) {
	v2 := filepath.Join(t.TempDir(), "v 2")
	if err := os.Mkdir(v2, 0o700); err != nil {
		t.Fatal(err)
	}
	unified := "40 39 0:40 / " + strings.ReplaceAll(v2, " ", `\040`) + " rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	old := "30 29 0:26 / /cg/systemd rw shared:7 - cgroup cgroup rw,name=systemd\n" +
		"31 29 0:27 / /cg/cpu,cpuacct rw shared:8 - cgroup cgroup rw,cpu,cpuacct\n" +
		"32 29 0:28 /docker/x /cg/memory rw - cgroup cgroup rw,memory\n"
	other := "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\nbroken\n\n23 22 0:5 / /cg/pids rw - tmpfs pids rw,pids\n"
	for _, tt := range []struct {
		name, mountinfo, offers, want, missing string
	}{
		{"v2", other + unified, "cpuset cpu io memory hugetlb pids rdma", "[{" + v2 + " true [memory cpu pids]}]", "[]"},
		{"v1", other + old, "", "[{/cg/cpu,cpuacct false [cpu]} {/cg/memory false [memory]}]", "[pids]"},
		{"both", other + old + unified, "pids hugetlb", "[{/cg/cpu,cpuacct false [cpu]} {/cg/memory false [memory]} {" + v2 + " true [pids]}]", "[]"},
		{"v2 with nothing to offer", unified + old, "", "[{/cg/cpu,cpuacct false [cpu]} {/cg/memory false [memory]}]", "[pids]"},
		{"mounted twice", old + old, "", "[{/cg/cpu,cpuacct false [cpu]} {/cg/memory false [memory]}]", "[pids]"},
		{"none", other, "", "[]", "[memory cpu pids]"},
	} {
		writeFile(t, filepath.Join(v2, "cgroup.controllers"), tt.offers+"\n")
		got, err := hierarchies(strings.NewReader(tt.mountinfo))
		if fmt.Sprint(got) != tt.want || err != nil {
			t.Errorf("%s: %v, %v, want %s", tt.name, got, err, tt.want)
		}
		if missing := fmt.Sprint(unlimited(got)); missing != tt.missing {
			t.Errorf("%s: missing %s, want %s", tt.name, missing, tt.missing)
		}
	}
}

func TestCheckHierarchy(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		v2    bool
		want  string
	}{
		"v1":                          {nil, false, ""},
		"all handed down":             {map[string]string{"cgroup.subtree_control": "cpu memory pids", "cgroup.procs": "1", "cgroup.type": "domain"}, true, ""},
		"the true root":               {map[string]string{"cgroup.subtree_control": "", "cgroup.procs": "1"}, true, ""},
		"a container without procs":   {map[string]string{"cgroup.subtree_control": "cpu", "cgroup.procs": "", "cgroup.type": "domain"}, true, ""},
		"a container with processes":  {map[string]string{"cgroup.subtree_control": "cpu", "cgroup.procs": "1", "cgroup.type": "domain"}, true, "the memory controller cannot be handed down: there are processes in "},
		"no control file, so no tree": {nil, true, "cgroup.subtree_control: no such file"},
	} {
		h := hierarchy{mount: t.TempDir(), v2: tt.v2, controllers: controllers()}
		for file, text := range tt.files {
			writeFile(t, filepath.Join(h.mount, file), text)
		}
		if err := h.check(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (hierarchy{mount: "/none"}).check(); err == nil {
		t.Error("a mount that is not there")
	}
}

// TestCgroupsWithoutLimits: a kernel without swap accounting lacks files that
// are optional; any other one must be there.
func TestCgroupsWithoutLimits(t *testing.T) {
	dir := t.TempDir()
	g := cgroups{lock: filepath.Join(dir, "run", "lock"), id: "abcdef012345", in: []hierarchy{{mount: dir, controllers: []string{"pids"}}}}
	// An ordinary directory has no files of a cgroup.
	if err := g.create(configIn(dir)); err == nil || !strings.Contains(err.Error(), "pids.max") {
		t.Errorf("create: %v", err)
	}
	if err := g.remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, cgroupParent)); err == nil {
		t.Error("the parent is left")
	}
	if err := g.remove(); err != nil {
		t.Errorf("remove again: %v", err)
	}
}

func TestOutOfMemory(t *testing.T) {
	dir := t.TempDir()
	g := cgroups{id: "vm", in: []hierarchy{{mount: dir}}}
	if g.outOfMemory() {
		t.Error("without a cgroup")
	}
	leaf := g.in[0].leaf("vm")
	if err := os.MkdirAll(leaf, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		for text, want := range map[string]bool{
			"low 0\noom 1\noom_kill 1\n": true, "oom 3\noom_kill 0\noom_group_kill 2\n": false, "": false,
		} {
			writeFile(t, filepath.Join(leaf, name), text)
			if got := g.outOfMemory(); got != want {
				t.Errorf("%s %q: %v", name, text, got)
			}
		}
		if err := os.Remove(filepath.Join(leaf, name)); err != nil {
			t.Fatal(err)
		}
	}
}
