package guest_test

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
)

// diskNode makes the node /disk of the guest's first disk, which holds the image.
const diskNode = "IFS=: read major minor < /sys/block/vda/dev; mknod /disk b $major $minor && "

// withCaps adds capabilities to those of docker.
func withCaps(r api.StartRequest, more ...string) api.StartRequest {
	c := *r.Spec.Process.Capabilities
	all := append(c.Bounding[:len(c.Bounding):len(c.Bounding)], more...)
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	return r
}

// TestDevices is about what containers can do with the devices of their guest.
func TestDevices(t *testing.T) {
	vm := newVM(t)
	given := sh("dd if=/dev/mine of=/dev/null bs=512 count=1 2>/dev/null && echo read; " + diskNode + "dd if=/disk bs=1 count=1 2>/dev/null | wc -c; mknod /mem c 1 1; cat /mem")
	given.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "b", Major: blockMajor(vm), Minor: 0}}
	everything := sh("dd if=/dev/vda bs=1 skip=1024 count=4 2>/dev/null | hexdump -e '4/1 \"%02x\"'")
	everything.AllDevices = true
	tests := []struct {
		name           string
		r              api.StartRequest
		stdout, stderr string
		code           int
	}{
		{"a disk", sh(diskNode + "test -b /disk && echo made; cat /disk; echo x > /disk; dd if=/disk of=/dev/null iflag=direct"), "made\n",
			"cat: can't open '/disk': Operation not permitted\n/bin/sh: can't create /disk: Operation not permitted\ndd: can't open '/disk': Operation not permitted\n", 1},
		{"a link to it", sh(diskNode + "ln /disk /srv/hard; ln -s /disk /srv/soft; cat /srv/hard /srv/soft"), "",
			"cat: can't open '/srv/hard': Operation not permitted\ncat: can't open '/srv/soft': Operation not permitted\n", 1},
		{"a cgroup below", withCaps(sh("mkdir -p /mnt; mount -t cgroup2 none /mnt; mkdir /mnt/below; echo 0 > /mnt/below/cgroup.procs; cat /proc/self/cgroup; "+diskNode+"cat /disk"), "CAP_SYS_ADMIN"), "0::/below\n",
			"cat: can't open '/disk': Operation not permitted\n", 1},
		{"devtmpfs", withCaps(sh("mkdir -p /mnt; mount -t devtmpfs none /mnt; cat /mnt/vda"), "CAP_SYS_ADMIN"), "",
			"cat: can't open '/mnt/vda': Operation not permitted\n", 1},
		{"a mount", withCaps(sh("mkdir -p /mnt; "+diskNode+"mount -t erofs -o ro /disk /mnt || echo not mounted"), "CAP_SYS_ADMIN"), "not mounted\n",
			"mount: permission denied (are you root?)\n", 0},
		{"memory", withCaps(sh("mknod /mem c 1 1; cat /mem; mknod /kmsg c 1 11; cat /kmsg; mknod /port c 1 4; cat /port; mknod /console c 5 1; cat /console"), "CAP_SYS_RAWIO"), "",
			"cat: can't open '/mem': Operation not permitted\ncat: can't open '/kmsg': Operation not permitted\ncat: can't open '/port': Operation not permitted\ncat: can't open '/console': Operation not permitted\n", 1},
		{"docker's", sh("for d in null zero full random urandom; do head -c 0 /dev/$d && echo $d; done; echo > /dev/null && echo > /dev/zero; echo > /dev/full"),
			"null\nzero\nfull\nrandom\nurandom\n", "sh: write error: No space left on device\n", 1},
		{"nodes of one's own", sh("mknod /n c 1 3 && echo > /n && echo null"), "null\n", "", 0},
		{"given", given, "read\n1\n", "cat: can't open '/mem': Operation not permitted\n", 1},
		{"all", everything, "e2e1f5e0", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vm.t = t
			r := vm.run(sh("rm -f /disk /mem /kmsg /port /console /n /srv/hard /srv/soft"))
			if r.exit.Code != 0 {
				t.Fatalf("clean: %+v", r)
			}
			if r = vm.run(tt.r); r.stdout != tt.stdout || r.stderr != tt.stderr || r.exit.Code != tt.code {
				t.Errorf("%+v\nwant %q %q %d", r, tt.stdout, tt.stderr, tt.code)
			}
		})
	}
	t.Run("terminal", func(t *testing.T) { vm.t = t; vm.devicesOfTerminal(t) })
	t.Run("exec", func(t *testing.T) { vm.t = t; vm.devicesOfExec(t) })
}

// blockMajor is the major number of the guest's disks.
func blockMajor(vm *guestVM) (major int64) {
	r := vm.run(sh("read n < /sys/block/vda/dev; echo ${n%:*}"))
	for _, c := range r.stdout {
		if c >= '0' && c <= '9' {
			major = 10*major + int64(c-'0')
		}
	}
	return major
}

// devicesOfTerminal has a terminal, and makes one more.
func (vm *guestVM) devicesOfTerminal(t *testing.T) {
	r := sh("stty -onlcr; echo > /dev/tty; echo console > /dev/console; test -c $(tty) && echo tty; exec 3<>/dev/ptmx && echo /dev/pts/*; rm -f /disk; " + diskNode + "cat /disk")
	r.Spec.Process.Terminal = true
	got := vm.run(r)
	if want := "\nconsole\ntty\n/dev/pts/0 /dev/pts/1 /dev/pts/ptmx\ncat: can't open '/disk': Operation not permitted\n"; got.stdout != want || got.exit.Code != 1 {
		t.Errorf("%+v, want %q", got, want)
	}
}

// devicesOfExec joins the container, which holds a privileged process too, as in
// docker.
func (vm *guestVM) devicesOfExec(t *testing.T) {
	s, err := vm.start(sh("echo ready; while :; do sleep 1000; done"))
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != "ready\n" {
		t.Fatalf("%q %v", b, err)
	}
	for _, privileged := range []bool{false, true} {
		e := shExec("echo > /dev/null; rm -f /disk; " + diskNode + "cat /disk")
		e.Privileged = privileged
		if r := vm.runExec(e); r.stderr != "cat: can't open '/disk': Operation not permitted\n" || r.exit.Code != 1 {
			t.Errorf("privileged=%v: %+v", privileged, r)
		}
	}
	vm.killContainer(s)
}
