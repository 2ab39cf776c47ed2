package vmmtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// testNetwork sends frames of all sizes through a NIC and gets them back.
func (s *suite) testNetwork(t *testing.T) {
	c := s.config(t, wire.ModeServe)
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:15", MTU: vmm.MaxMTU}}
	v := s.boot(t, c)
	if got := v.do(t, "nic %s %d", c.NICs[0].MAC, vmm.MaxMTU); got != "up" {
		t.Fatalf("guest: %s", got)
	}
	linker, ok := v.Machine.(vmm.Linker)
	if !ok {
		t.Fatal("the machine is no vmm.Linker")
	}
	link := linker.Link(0)
	echoAll(t, link, c.NICs[0])
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := link.Write(make([]byte, 60)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("link of a VM that has ended: %v, want it closed", err)
	}
}

// echoAll sends frames of all sizes that a NIC with this MTU takes.
func echoAll(t *testing.T, link *os.File, n vmm.NIC) {
	t.Helper()
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{60, 61, 1514, 9000, n.MTU + 14} {
		frame := make([]byte, size)
		copy(frame, string(mac)+"\x02\x00\x00\x00\x00\x02"+wire.EtherType)
		if _, err := io.ReadFull(wire.Pattern(), frame[14:]); err != nil {
			t.Fatal(err)
		}
		if err := echoed(link, frame); err != nil {
			t.Errorf("frame of %d bytes: %v", size, err)
		}
	}
}

// echoed sends a frame until it comes back: a link may lose some. What else the
// guest sends is not meant for us.
func echoed(link *os.File, frame []byte) error {
	want := bytes.Clone(frame)
	copy(want, frame[6:12])
	copy(want[6:], frame[:6])
	buf := make([]byte, 1<<17)
	for range 10 {
		if _, err := link.Write(frame); err != nil {
			return err
		}
		if err := link.SetReadDeadline(time.Now().Add(patience / 10)); err != nil {
			return err
		}
		for {
			n, err := link.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if bytes.Equal(buf[:n], want) {
				return nil
			}
			if n >= 14 && string(buf[12:14]) == wire.EtherType && n == len(want) {
				return errors.New("came back damaged")
			}
		}
	}
	return errors.New("did not come back")
}
