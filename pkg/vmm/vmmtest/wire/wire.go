// Package wire is what the two halves of the contract suite agree on: the test
// on the host and the program that it boots.
package wire

import "io"

// Ports. The guest listens on the first four, the host on the others.
const (
	PortEcho    = 10 // returns what it gets
	PortSource  = 11 // "<n>\n": n bytes of Pattern, then the guest closes
	PortSink    = 12 // reads to the end, then reports to PortReport
	PortCommand = 13 // one line in, one line out, then the guest closes
	PortClosed  = 14 // nobody listens

	PortReady  = 1024 // the guest says Ready
	PortReport = 1025 // "<bytes> <sha256> <error>\n"
	PortAbsent = 1026 // nobody listens
)

// Ready is the guest's first line.
const Ready = "ready"

// EtherType of the suite's frames: local experiments, IEEE 802.
const EtherType = "\x88\xb5"

// Modes, the content of the file /mode in the initramfs.
const (
	ModeServe  = "serve"
	ModeSilent = "silent" // boots, never answers
	ModeReboot = "reboot"
	ModePanic  = "panic"
)

// Pattern is an endless stream of bytes in which every block of 8 differs.
func Pattern() io.Reader { return &pattern{} }

type pattern struct{ pos uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		n := p.pos >> 3 * 0x9e3779b97f4a7c15
		b[i] = byte(n >> (8 * (p.pos & 7)))
		p.pos++
	}
	return len(b), nil
}
