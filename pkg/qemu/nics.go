package qemu

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// openNICs makes the host's ends of the NICs: sockets, of which we keep one
// side, and devices, which are QEMU's alone.
func (l *launch) openNICs() error {
	for _, n := range l.c.NICs {
		if n.Device != "" {
			f, err := vmm.NewTAP(n.Device, n.MTU)
			if err != nil {
				return err
			}
			l.children = append(l.children, f)
			l.m.links = append(l.m.links, nil)
			continue
		}
		ours, theirs, err := socketPair(unix.SOCK_DGRAM | unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		l.children = append(l.children, theirs)
		l.m.links = append(l.m.links, ours)
		l.undo.add(func() { ours.Close() })
	}
	return nil
}

// standIns are devices for a guest that is to become a template. What a device
// can offload is a part of the guest's state, and that of a socket or a hub is
// nothing. Nobody sees them: they are in a network namespace of their own.
func standIns(nics []vmm.NIC) (files []*os.File, err error) {
	for _, n := range nics {
		if n.Device == "" {
			continue
		}
		err := vmm.InNewNetwork(func() error {
			f, err := vmm.NewTAP(n.Device, n.MTU)
			files = append(files, f)
			return err
		})
		if err != nil {
			closeAll(files)
			return nil, err
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // nil is no harm
	}
}
