package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// genetlink asks one family of generic netlink, netlink(7). For one goroutine.
type genetlink struct {
	fd     int
	family uint16
}

// netlinkAttr is struct nlattr with what follows it.
type netlinkAttr struct {
	kind  uint16
	value []byte
}

// errNoFamily says that the kernel has no such family, or not yet.
var errNoFamily = errors.New("no such family of generic netlink")

func openGenetlink(family string) (*genetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open generic netlink: %w", err)
	}
	g := &genetlink{fd: fd, family: unix.GENL_ID_CTRL}
	attrs, err := g.call(unix.CTRL_CMD_GETFAMILY, netlinkAttr{unix.CTRL_ATTR_FAMILY_NAME, append([]byte(family), 0)})
	if err == nil {
		g.family, err = familyID(attrs)
	}
	if err != nil {
		g.close()
		if errors.Is(err, unix.ENOENT) {
			err = errNoFamily
		}
		return nil, fmt.Errorf("find %s: %w", family, err)
	}
	return g, nil
}

func familyID(attrs []netlinkAttr) (uint16, error) {
	for _, a := range attrs {
		if a.kind == unix.CTRL_ATTR_FAMILY_ID && len(a.value) == 2 {
			return binary.NativeEndian.Uint16(a.value), nil
		}
	}
	return 0, errors.New("the family has no id")
}

func (g *genetlink) close() { unix.Close(g.fd) }

// call makes one call and returns the attributes of its answer.
func (g *genetlink) call(command uint8, attrs ...netlinkAttr) ([]netlinkAttr, error) {
	if err := unix.Sendto(g.fd, genetlinkMessage(g.family, command, attrs), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var answer []netlinkAttr
	for {
		buf := make([]byte, 1<<15) // its own each time: the answer is in the first
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(g.fd, buf) })
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				// The acknowledgement: it comes last, and is 0 after a success.
				if code := -int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return nil, unix.Errno(code)
				}
				return answer, nil
			case m.Header.Type == g.family && len(m.Data) >= unix.GENL_HDRLEN:
				answer = parseAttrs(m.Data[unix.GENL_HDRLEN:])
			}
		}
	}
}

// genetlinkMessage is a request of version 1 that wants to be acknowledged.
func genetlinkMessage(family uint16, command uint8, attrs []netlinkAttr) []byte {
	body := appendAttrs(nil, attrs...)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+unix.GENL_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, family)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...) // sequence and port
	b = append(b, command, 1, 0, 0)
	return append(b, body...)
}

func appendAttrs(b []byte, attrs ...netlinkAttr) []byte {
	for _, a := range attrs {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
		b = append(b, make([]byte, -len(b)&(unix.NLA_ALIGNTO-1))...)
	}
	return b
}

func parseAttrs(b []byte) []netlinkAttr {
	var attrs []netlinkAttr
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		attrs = append(attrs, netlinkAttr{binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:n]})
		b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return attrs
}

func attrU32(kind uint16, v uint32) netlinkAttr {
	return netlinkAttr{kind, binary.NativeEndian.AppendUint32(nil, v)}
}

func attrU64(kind uint16, v uint64) netlinkAttr {
	return netlinkAttr{kind, binary.NativeEndian.AppendUint64(nil, v)}
}

func attrNested(kind uint16, attrs ...netlinkAttr) netlinkAttr {
	return netlinkAttr{kind | unix.NLA_F_NESTED, appendAttrs(nil, attrs...)}
}
