package kvmhost

import (
	"slices"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	m := machine{kernel: "/k", initrd: "/i", scratch: "/a,b", memoryMiB: 4096, cpus: 2}
	virtual := m
	virtual.virtualClock = true
	shared := m
	shared.writable = map[string]string{"share1": "/y", "share0": "/x,z"}
	for _, tt := range []struct {
		name    string
		m       machine
		want    []string // each in one piece
		without string
	}{
		{"plain", m, []string{
			"-machine q35 -accel tcg,thread=multi -cpu EPYC-v3,+svm,+npt,+nrip-save -smp 2 -m 4096 -kernel /k -initrd /i -append console=ttyS0",
			"-drive id=scratch,if=none,format=raw,cache=unsafe,discard=unmap,file=/a,,b",
			"-fsdev local,id=root,path=/,security_model=none,multidevs=remap,readonly=on -device virtio-9p-pci,fsdev=root,mount_tag=root",
			"-no-reboot", "-nodefaults",
		}, "-icount"},
		{"virtual clock", virtual, []string{"-accel tcg,thread=single", "-smp 1 ", "-icount shift=0,sleep=off"}, "thread=multi"},
		{"shares", shared, []string{
			"-fsdev local,id=share0,path=/x,,z,security_model=none,multidevs=remap -device virtio-9p-pci,fsdev=share0,mount_tag=share0 " +
				"-fsdev local,id=share1,path=/y,security_model=none",
		}, "path=/y,security_model=none,multidevs=remap,readonly"},
	} {
		args := strings.Join(arguments(tt.m), " ")
		for _, want := range tt.want {
			if !strings.Contains(args, want) {
				t.Errorf("%s: %q is not in %s", tt.name, want, args)
			}
		}
		if strings.Contains(args, tt.without) {
			t.Errorf("%s: %q is in %s", tt.name, tt.without, args)
		}
	}
}

// The network of this machine is not the host's to use.
func TestNoNetwork(t *testing.T) {
	for _, a := range arguments(machine{}) {
		if strings.Contains(a, "net") {
			t.Errorf("argument %s", a)
		}
	}
}

func TestHidden(t *testing.T) {
	for path, want := range map[string]bool{"/tmp/a": true, "/var/tmp/a/b": true, "/tmpfs": false, "/home/tmp/a": false, "/work": false} {
		if hidden(path) != want {
			t.Errorf("hidden(%s) is %v", path, !want)
		}
	}
}

func TestHasVirtualization(t *testing.T) {
	for cpuinfo, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu svm nx\n":                             true,
		"flags\t\t: fpu vmx\nvmx flags\t: vnmi\n":                             true,
		"flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n":                        false,
		"model name\t: svm\nflags\t\t: fpu\n\nprocessor\t: 1\nflags\t: vmx\n": false,
		"": false,
	} {
		if hasVirtualization(cpuinfo) != want {
			t.Errorf("%q: %v", cpuinfo, !want)
		}
	}
}

func TestWithPath(t *testing.T) {
	if got := withPath([]string{"A=b"}); !slices.Equal(got, []string{"A=b", defaultPath}) {
		t.Errorf("%q", got)
	}
	if got := withPath([]string{"PATH="}); !slices.Equal(got, []string{"PATH="}) {
		t.Errorf("%q", got)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var k tail
	for range 3 {
		k.Write([]byte(strings.Repeat("x", maxOutput/2)))
	}
	k.Write([]byte("\nqemu: warning: TCG doesn't support requested feature: CPUID\nend\n"))
	if got := k.String(); len(got) > maxOutput || !strings.HasSuffix(got, "x\nend\n") {
		t.Errorf("%d bytes, end %q", len(got), got[max(0, len(got)-20):])
	}
}
