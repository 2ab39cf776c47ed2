package bridge

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// queue is a connection of package nftables that sends nothing: what it is told to
// change it has taken down when it is flushed. By itself the package would ask for an
// acknowledgement of each message, and read them one by one, which takes longer than the
// kernel does for the whole policy.
type queue struct {
	*nftables.Conn
	taken []netlink.Message
}

func newQueue() (*queue, error) {
	q := &queue{}
	take := func(batch []netlink.Message) ([]netlink.Message, error) {
		q.taken = slices.Clone(batch)
		return nil, unix.EPERM // and it asks for no answers
	}
	var err error
	q.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithTestDial(take))
	return q, err
}

// take is all that is queued, with the beginning and the end of a batch; nil if there is
// nothing.
func (q *queue) take() ([]netlink.Message, error) {
	q.taken = nil
	err := q.Flush()
	if q.taken != nil {
		err = nil
	}
	return q.taken, err
}

// transact sends a batch and returns the first of what the kernel has to say against it.
// Only the last message is to be acknowledged: the kernel tells of each that it refuses
// anyway (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c), and all of it is there
// when the batch is sent.
func transact(batch []netlink.Message) error {
	if len(batch) < 3 {
		return nil
	}
	begin, last := batch[0].Header.Sequence, batch[len(batch)-2].Header.Sequence
	b, err := encode(batch)
	if err != nil {
		return err
	}
	fd, err := netfilterSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := prepareSocket(fd); err != nil {
		return fmt.Errorf("prepare the socket: %w", err)
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return verdict(fd, begin, last)
}

// encode is a batch as the kernel gets it. Pure.
func encode(batch []netlink.Message) ([]byte, error) {
	size := 0
	for _, m := range batch {
		size += int(m.Header.Length)
	}
	all := make([]byte, 0, size)
	for i, m := range batch {
		m.Header.Flags &^= netlink.Acknowledge | netlink.Echo // of a rule nobody asks for its handle
		if i == len(batch)-2 {
			m.Header.Flags |= netlink.Acknowledge
		}
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

func prepareSocket(fd int) error {
	for _, o := range []struct{ force, plain int }{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, socketBuffer) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, socketBuffer); err != nil {
			return err
		}
	}
	// An answer has no copy of what it is to.
	return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
}

// verdict reads answers up to that to the last message. One against the beginning of a
// batch is against all of it, and the last.
func verdict(fd int, begin, last uint32) (first error) {
	b := make([]byte, 8<<10)
	for {
		answers, err := receive(fd, b)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 {
				continue
			}
			code := int32(binary.NativeEndian.Uint32(a.Data))
			if code < 0 && first == nil {
				first = unix.Errno(-code)
			}
			if a.Header.Seq == last || a.Header.Seq == begin && code < 0 {
				return first
			}
		}
	}
}
