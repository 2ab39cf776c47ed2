package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// kind is what nftables is asked to list.
type kind uint8

const (
	allChains kind = unix.NFT_MSG_GETCHAIN
	allRules  kind = unix.NFT_MSG_GETRULE
)

// dump lists chains or rules, of a family and, of rules, of a table: each with its
// family and its attributes, until each wants no more. What is not read by then the
// kernel does not put together. The error is netlink.ErrDumpInterrupted if somebody
// changed the ruleset meanwhile.
//
// Package nftables reads all of it, takes each rule apart, which takes ten times as
// long, and leaves out the parts that it does not know.
func dump(what kind, family nftables.TableFamily, table string, each func(family nftables.TableFamily, attributes []byte) bool) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	defer s.Close()
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: int64(answerTime.Seconds())}); err != nil {
		return err
	}
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|int(what), unix.NLM_F_DUMP)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
	if table != "" {
		r.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
	}
	if err := s.Send(r); err != nil {
		return err
	}
	interrupted := false
	for {
		messages, from, err := s.Receive()
		if err != nil {
			return err
		}
		if from.Pid != nl.PidKernel {
			continue
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

// generation is the number of the kernel's rules in this network namespace: each
// transaction that changes some, whoever's, adds one.
func generation() (uint32, error) {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	r.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0})
	answers, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("nftables: ask for the generation of rules: %w", err)
	}
	for _, a := range answers {
		if len(a) >= nl.SizeofNfgenmsg {
			if n, there := number(a[nl.SizeofNfgenmsg:], unix.NFTA_GEN_ID); there {
				return n, nil
			}
		}
	}
	return 0, errors.New("nftables: the kernel does not tell the generation of rules")
}

// countRules counts the rules of a table by their chains.
func countRules(family nftables.TableFamily, table string) (map[string]int, error) {
	return consistent(func() (map[string]int, error) {
		count := map[string]int{}
		err := dump(allRules, family, table, func(_ nftables.TableFamily, rule []byte) bool {
			count[text(rule, unix.NFTA_RULE_CHAIN)]++
			return true
		})
		if err != nil {
			return nil, err
		}
		return count, nil
	})
}
