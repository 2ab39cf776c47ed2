package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// kind is what nftables is asked to list.
type kind uint8

const (
	allChains   kind = unix.NFT_MSG_GETCHAIN
	allRules    kind = unix.NFT_MSG_GETRULE
	allSets     kind = unix.NFT_MSG_GETSET
	allElements kind = unix.NFT_MSG_GETSETELEM
)

// each gets one of what is listed, its family and its attributes, and is false if it
// wants no more.
type each func(family nftables.TableFamily, attributes []byte) bool

// dump lists chains or rules, of a family and, of rules, of a table, until each wants no
// more. What is not read by then the kernel does not put together. The error is that of
// reader.list.
func dump(what kind, family nftables.TableFamily, table string, each each) error {
	r, err := newReader()
	if err != nil {
		return err
	}
	defer r.close()
	if table == "" {
		return r.list(what, family, each)
	}
	return r.list(what, family, each, table)
}

// reader is a socket for lists of what nftables has, one after the other.
//
// Package nftables reads all of a list, takes each rule apart, which takes ten times as
// long, and leaves out the parts that it does not know. Of a set it takes six times as
// long.
type reader struct {
	fd     int
	buffer []byte
}

// listSize is what the kernel puts together of a list at a time, in bytes: as much as
// there is room for, and no message of nftables' takes more.
const listSize = 32 << 10

func newReader() (*reader, error) {
	fd, err := netfilterSocket()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &reader{fd, make([]byte, listSize)}, nil
}

func (r *reader) close() error { return unix.Close(r.fd) }

// list lists what a table has, or a set of it, by their names. No other list may follow one
// of which each did not want all. The error is netlink.ErrDumpInterrupted if somebody
// changed the ruleset meanwhile, and unix.ENOENT if there is no such table or set.
func (r *reader) list(what kind, family nftables.TableFamily, each each, of ...string) error {
	q := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|int(what), unix.NLM_F_DUMP)
	q.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
	for i, name := range of {
		q.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE+i, nl.ZeroTerminated(name))) // as NFTA_RULE_TABLE, NFTA_SET_TABLE
	}
	if err := r.send(q); err != nil {
		return err
	}
	interrupted := false
	for {
		messages, err := r.receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Header.Type == unix.NLMSG_DONE, m.Header.Type == unix.NLMSG_ERROR:
				return ending(m.Data, interrupted)
			case len(m.Data) < nl.SizeofNfgenmsg:
				return fmt.Errorf("nftables: a message of %d bytes", len(m.Data))
			case !each(nftables.TableFamily(m.Data[0]), m.Data[nl.SizeofNfgenmsg:]):
				return nil
			}
		}
	}
}

func (r *reader) send(q *nl.NetlinkRequest) error {
	return unix.Sendto(r.fd, q.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (r *reader) receive() ([]syscall.NetlinkMessage, error) { return receive(r.fd, r.buffer) }

// netfilterSocket is one to ask the kernel by. What it answers is there when it is asked:
// nobody is waited for.
func netfilterSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// receive reads messages of the kernel, with room in buffer.
func receive(fd int, buffer []byte) ([]syscall.NetlinkMessage, error) {
	n, from, err := unix.Recvfrom(fd, buffer, 0)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(fd, buffer, 0)
	}
	if err != nil {
		return nil, err
	}
	if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != nl.PidKernel {
		return nil, nil
	}
	return syscall.ParseNetlinkMessage(bytes.Clone(buffer[:n]))
}

// ending is the error with which a list ends. Pure.
func ending(message []byte, interrupted bool) error {
	if len(message) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(message)); code < 0 {
			return unix.Errno(-code)
		}
	}
	if interrupted {
		return netlink.ErrDumpInterrupted
	}
	return nil
}

// attributes are those of a message, or of one of its attributes, by their types
// (linux/netlink.h, struct nlattr). One that is not whole ends them. Pure.
func attributes(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			of := int(binary.NativeEndian.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofNlAttr || size > len(b) || !yield(of, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
		}
	}
}

// attribute is the first of a type, nil if there is none. Pure.
func attribute(b []byte, of int) []byte {
	for t, value := range attributes(b) {
		if t == of {
			return value
		}
	}
	return nil
}

// text is an attribute's that is one. Pure.
func text(b []byte, of int) string { return unix.ByteSliceToString(attribute(b, of)) }

// number is an attribute's that is one of 32 bits, as nftables has them; there is
// none if it is not there. Pure.
func number(b []byte, of int) (n uint32, there bool) {
	value := attribute(b, of)
	if len(value) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(value), true
}

// generation is reader.generation.
func generation() (uint32, error) {
	r, err := newReader()
	if err != nil {
		return 0, err
	}
	defer r.close()
	return r.generation()
}

// generation is the number of the kernel's rules in this network namespace: each
// transaction that changes some, whoever's, adds one.
func (r *reader) generation() (uint32, error) {
	q := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	q.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0})
	if err := r.send(q); err != nil {
		return 0, err
	}
	answers, err := r.receive()
	if err != nil {
		return 0, fmt.Errorf("nftables: ask for the generation of rules: %w", err)
	}
	for _, a := range answers {
		if a.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN && len(a.Data) >= nl.SizeofNfgenmsg {
			if n, there := number(a.Data[nl.SizeofNfgenmsg:], unix.NFTA_GEN_ID); there {
				return n, nil
			}
		}
	}
	return 0, errors.New("nftables: the kernel does not tell the generation of rules")
}

// countRules counts the rules of a table by their chains.
func (r *reader) countRules(family nftables.TableFamily, table string) (map[string]int, error) {
	return consistent(func() (map[string]int, error) {
		count := map[string]int{}
		err := r.list(allRules, family, func(_ nftables.TableFamily, rule []byte) bool {
			count[text(rule, unix.NFTA_RULE_CHAIN)]++
			return true
		}, table)
		if err != nil {
			return nil, err
		}
		return count, nil
	})
}

// names are those of the sets of a table; nil if there is no such table.
func (r *reader) names(family nftables.TableFamily, table string) (names []string, there bool, err error) {
	names, err = consistent(func() ([]string, error) {
		var names []string
		err := r.list(allSets, family, func(_ nftables.TableFamily, set []byte) bool {
			names = append(names, text(set, unix.NFTA_SET_NAME))
			return true
		}, table)
		return names, err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	return names, err == nil, err
}

// elements are those of a set, with their comments as their owners.
func (r *reader) elements(family nftables.TableFamily, table, set string) (map[string]element, error) {
	return consistent(func() (map[string]element, error) {
		all := map[string]element{}
		err := r.list(allElements, family, func(_ nftables.TableFamily, message []byte) bool {
			for _, e := range attributes(attribute(message, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				key, value := attribute(e, unix.NFTA_SET_ELEM_KEY), attribute(e, unix.NFTA_SET_ELEM_DATA)
				all[string(attribute(key, unix.NFTA_DATA_VALUE))] = element{
					value: attribute(value, unix.NFTA_DATA_VALUE), owner: comment(attribute(e, unix.NFTA_SET_ELEM_USERDATA)),
				}
			}
			return true
		}, table, set)
		return all, err
	})
}

// comment is that in the user data of an element: one of several values, each behind a
// byte for its type and one for its size. Pure.
func comment(data []byte) string {
	for len(data) >= 2 {
		of, end := userdata.Type(data[0]), 2+int(data[1])
		if end > len(data) {
			break
		}
		if of == userdata.NFTNL_UDATA_SET_ELEM_COMMENT {
			return unix.ByteSliceToString(data[2:end])
		}
		data = data[end:]
	}
	return ""
}
