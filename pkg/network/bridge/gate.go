package bridge

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A gate is a program of the kernel (eBPF, at the clsact hooks of a bridge) that
// lets pass, to the host's stack and from it, only packets with a mark of the
// tables, and ARP, which has none. (From a guest, packets come to it behind the
// table of bridges; where br_netfilter is, behind that of IP too.) So a firewall that somebody flushed opens
// nothing: what is left over then are the frames between guests of one network,
// which the host does not see.
//
// Routing rules could not do that alone: the check of a packet's source
// (rp_filter) looks for the way back, as if it came from the bridge, and without
// a mark.

// instruction is one of eBPF: RFC 9669, section 3.
type instruction struct {
	code      uint8
	registers uint8 // the destination in the low half
	offset    int16
	immediate int32
}

// Offsets in struct __sk_buff, and verdicts, of linux/bpf.h and linux/pkt_cls.h.
const (
	skbMark     = 8
	skbProtocol = 16
	actContinue = -1 // TC_ACT_UNSPEC: as if there were no gate
	actDrop     = 2  // TC_ACT_SHOT
)

// gateProgram is the gate's.
func gateProgram() []instruction {
	const loadWord, move, and, ifEqual, ifOther, exit = 0x61, 0xb7, 0x57, 0x15, 0x55, 0x95
	arp := int32(binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff}))
	return []instruction{
		{loadWord, 0x12, skbProtocol, 0},
		{move, 0x00, 0, actContinue},
		{ifEqual, 0x02, 4, arp},
		{loadWord, 0x12, skbMark, 0},
		{and, 0x02, 0, seen | passed},
		{ifOther, 0x02, 1, 0},
		{move, 0x00, 0, actDrop},
		{exit, 0x00, 0, 0},
	}
}

// loadTime bounds how long a program is given to the kernel again and again, whose
// verifier gives up with EAGAIN when the thread gets a signal (do_check in
// kernel/bpf/verifier.c): one of Go's own, which it sends to interrupt goroutines.
const loadTime = 10 * time.Second

// loadProgram gives a program to the kernel. The file is its only reference.
func loadProgram(program []instruction) (*os.File, error) {
	const load, classifier = 5, 3 // BPF_PROG_LOAD, BPF_PROG_TYPE_SCHED_CLS
	license := new([1]byte)
	// Their addresses are numbers in what follows: they are not to move.
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&program[0])
	pins.Pin(license)
	// The beginning of union bpf_attr; the rest is zero.
	attr := struct {
		kind, count           uint32
		instructions, license uint64
	}{classifier, uint32(len(program)), address64(&program[0]), address64(license)}
	for end := time.Now().Add(loadTime); ; {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, load, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == 0 {
			return os.NewFile(fd, "gate"), nil
		}
		if errno != unix.EAGAIN || time.Now().After(end) {
			return nil, fmt.Errorf("load eBPF program: %w", errno)
		}
	}
}

func address64[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// addGate puts the gate at a bridge, both ways. One that is there is replaced.
func addGate(bridge netlink.Link) error {
	program, err := loadProgram(gateProgram())
	if err != nil {
		return err
	}
	defer program.Close() // the filters hold it
	index := bridge.Attrs().Index
	hooks := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := netlink.QdiscReplace(hooks); err != nil {
		return fmt.Errorf("add clsact (the kernel needs its module sch_ingress): %w", err)
	}
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filter := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: hook, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          int(program.Fd()), Name: "micropod", DirectAction: true,
		}
		if err := netlink.FilterReplace(filter); err != nil {
			return fmt.Errorf("add gate (the kernel needs its module cls_bpf): %w", err)
		}
	}
	return nil
}
