package vmmtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// tapDevice is the suite's device, in network namespaces of its own.
const tapDevice = "mp-vmmtest"

// testDevice: a TAP device of the host at the other end of a NIC.
func (s *suite) testDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		s.testNoDevice(t)
		return
	}
	newNetwork(t)
	c := s.deviceConfig(t, wire.ModeServe)
	v := s.boot(t, c)
	if l := v.Machine.(vmm.Linker).Link(0); l != nil {
		t.Errorf("it has a link, too: %v", l.Name())
	}
	checkDevice(t, c.NICs[0])
	s.testSecondDevice(t)
	s.useDevice(t, v)
	v.do(t, "reboot")
	v.ended(t)
	noDevice(t)

	s.testDeviceOfTemplate(t)
	c = s.deviceConfig(t, wire.ModeSilent)
	s.killParent(t, c, func() { checkDevice(t, c.NICs[0]) })
	noDevice(t)
}

// testDeviceOfTemplate: a VM that goes on from a template has what others have.
func (s *suite) testDeviceOfTemplate(t *testing.T) {
	t.Helper()
	first := s.deviceConfig(t, wire.ModeServe)
	first.Templates = t.TempDir()
	like := func(i int) vmm.Config {
		c := s.deviceConfig(t, wire.ModeServe)
		c.NICs[0].MAC = fmt.Sprintf("02:00:00:00:00:%02x", 32+i)
		c.Initrd, c.Templates = first.Initrd, first.Templates
		return c
	}
	for i := range 3 { // the second makes the template
		v := s.boot(t, like(i))
		if got := v.Machine.(vmm.Templated).FromTemplate(); got != (i > 0) {
			t.Errorf("start %d: from a template is %v", i+1, got)
		}
		s.useDevice(t, v)
		v.Kill()
		noDevice(t)
	}
	templates := func(want int) {
		t.Helper()
		if made, err := filepath.Glob(filepath.Join(first.Templates, "*.state")); err != nil || len(made) != want {
			t.Errorf("templates %v, %v, want %d", made, err, want)
		}
	}
	templates(1)
	s.start(t, like(3)).Kill() // nobody says that its guest was heard
	templates(0)
}

// useDevice: frames come and go, and the guest's work is left to the host.
func (s *suite) useDevice(t *testing.T, v *vm) {
	t.Helper()
	n := v.c.NICs[0]
	link := packetSocket(t, checkDevice(t, n))
	if got := v.do(t, "nic %s %d %s", n.MAC, n.MTU, vmm.TemplateMAC(0)); got != "up" {
		t.Fatalf("guest: %s", got)
	}
	echoAll(t, link, n)
	checkOffloads(t, v.do(t, "features %s", n.MAC))
	s.testTCP(t, v, link)
}

// testTCP: the host's kernel gets what the guest sends, in more than the link
// carries at a time: dividing it is left to who puts it on a wire.
func (s *suite) testTCP(t *testing.T, v *vm, link *os.File) {
	t.Helper()
	dev, err := netlink.LinkByName(link.Name())
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(dev, addr); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sum := make(chan string, 1)
	go func() { sum <- received(l) }()
	if err := link.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	largest := make(chan int, 1)
	go func() { largest <- largestFrame(link) }()
	if got := v.do(t, "send %s 192.0.2.2 %s %d", v.c.NICs[0].MAC, l.Addr(), bulk); got != "sent" {
		t.Fatalf("guest: %s", got)
	}
	if got := <-sum; got != patternSum(bulk) {
		t.Errorf("over TCP came %s, want %s", got, patternSum(bulk))
	}
	if err := link.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := <-largest; got <= v.c.NICs[0].MTU+14 {
		t.Errorf("the largest frame has %d bytes: the guest divides what it sends", got)
	}
}

// received is the sum of what the first client sends, or an error.
func received(l net.Listener) string {
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// largestFrame reads until the link's deadline.
func largestFrame(link *os.File) int {
	buf, largest := make([]byte, 1<<17), 0
	for {
		n, err := link.Read(buf)
		if err != nil {
			return largest
		}
		largest = max(largest, n)
	}
}

func (s *suite) deviceConfig(t *testing.T, mode string) vmm.Config {
	t.Helper()
	c := s.config(t, mode)
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:15", MTU: 9000, Device: tapDevice}}
	return c
}

// newNetwork puts the test, and what it starts, into a network namespace that
// ends with it.
func newNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// checkDevice holds the device against what was asked for.
func checkDevice(t *testing.T, n vmm.NIC) *net.Interface {
	t.Helper()
	dev, err := net.InterfaceByName(n.Device)
	if err != nil {
		t.Fatal(err)
	}
	if dev.MTU != n.MTU || dev.Flags&net.FlagUp != 0 {
		t.Errorf("the device is %+v, want MTU %d, not up", dev, n.MTU)
	}
	return dev
}

func noDevice(t *testing.T) {
	t.Helper()
	if dev, err := net.InterfaceByName(tapDevice); err == nil {
		t.Errorf("the device is left: %+v", dev)
	}
}

// testSecondDevice: what exists is not taken, nor taken away.
func (s *suite) testSecondDevice(t *testing.T) {
	t.Helper()
	if err := s.refused(t, s.deviceConfig(t, wire.ModeSilent)); !strings.Contains(err.Error(), "there is a device of that name") {
		t.Error(err)
	}
}

// testNoDevice: who may not make a device is told so.
func (s *suite) testNoDevice(t *testing.T) {
	if err := s.refused(t, s.deviceConfig(t, wire.ModeSilent)); !strings.Contains(err.Error(), "it takes root") {
		t.Error(err)
	}
	noDevice(t)
}

// refused is the error of a start that must not succeed.
func (s *suite) refused(t *testing.T, c vmm.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	files := openFiles(t)
	m, err := s.new(t).Start(ctx, c)
	if err == nil {
		m.Kill()
		t.Fatal("it starts")
	}
	nothingLeft(t, c, files)
	return err
}

// packetSocket brings the device up and returns its frames.
func packetSocket(t *testing.T, dev *net.Interface) *os.File {
	t.Helper()
	all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), dev.Name)
	t.Cleanup(func() { f.Close() })
	// Before the socket is bound, which would tell of a network that is down.
	if err := vmm.ChangeDevice(dev.Name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) }); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		t.Fatal(err)
	}
	return f
}

// checkOffloads: the guest leaves checksums and segments to the host, in both
// directions.
func checkOffloads(t *testing.T, features string) {
	t.Helper()
	for name, bit := range map[string]int{"CSUM": 0, "GUEST_CSUM": 1, "GUEST_TSO4": 7, "HOST_TSO4": 11} {
		if bit >= len(features) || features[bit] != '1' {
			t.Errorf("VIRTIO_NET_F_%s is not among the guest's features %s", name, features)
		}
	}
}
