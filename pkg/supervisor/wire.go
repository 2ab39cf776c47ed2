package supervisor

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/agent/wire"
	"github.com/micropod/micropod/pkg/vmm"
)

// wired is a NIC that its guest got while it ran: a connection to the guest, and on the
// host what stands where a VMM has the other end of its device.
type wired struct {
	conn net.Conn
	done chan struct{} // closed when nothing goes over it any more
}

// close ends it, and with it the devices at both ends. nil is no harm.
func (w *wired) close() {
	if w != nil {
		w.conn.Close()
		<-w.done
	}
}

// wire gives the guest a device that is in the network of a NIC. What has begun when
// it fails, n's close ends.
func (s *supervisor) wire(n *nic, guest api.NIC) error {
	link, err := s.link(n)
	if err != nil {
		return err
	}
	failpoint.Here(failpoint.ConnectLinked)
	ctx, cancel := s.callCtx()
	defer cancel()
	request := api.NICRequest{NIC: guest, Segments: n.bridged()}
	conn, err := agent.OpenNIC(ctx, s.plan.VM.VsockPath, s.plan.Setup.Token, request)
	if err != nil {
		link.Close()
		return s.guestError(err)
	}
	w := &wired{conn: conn, done: make(chan struct{})}
	n.wire = w
	name, end := n.plan.Name, wire.End{File: link, Bare: !n.bridged()} // a change of networks may renew the plan
	go func() {
		defer close(w.done)
		err := wire.Carry(conn, end)
		s.log.Info("a network device of the guest has gone", "network", name, "err", err)
	}()
	return nil
}

// link makes the host's end of a NIC, in its network.
func (s *supervisor) link(n *nic) (*os.File, error) {
	if n.bridged() {
		return s.bridgeLink(n)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	defer theirs.Close() // the network has it twice
	if err := n.user.Attach(theirs); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// bridgeLink makes a device of the host. As at the start, the rules are there before.
func (s *supervisor) bridgeLink(n *nic) (*os.File, error) {
	if err := n.joined.Join(s.booting); err != nil {
		return nil, err
	}
	tap, err := vmm.NewTAP(n.plan.Device(), n.plan.MTU())
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	if err := wire.Offload(tap, true); err != nil {
		return nil, err
	}
	link, err := wire.Open(tap)
	if err != nil {
		return nil, err
	}
	if err := n.joined.Plug(s.booting); err != nil {
		link.Close()
		return nil, err
	}
	return link, nil
}
