package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrProtocol is wrapped by errors of a client that sends what no client of ours
// sends. The connection is of no further use.
var ErrProtocol = errors.New("NBD protocol broken")

// MaxLength bounds a read or a write, in bytes. Linux asks for no more at a time
// (nbd_dev_add in drivers/block/nbd.c: 65536 sectors).
const MaxLength = 32 << 20

// The wire of the transmission phase, all big-endian.
const (
	requestMagic = 0x25609513
	replyMagic   = 0x67446698
	requestSize  = 28 // magic, flags, command, cookie, offset, length
	replySize    = 16 // magic, error, cookie
)

type command uint16

const (
	cmdRead  command = 0
	cmdWrite command = 1
	cmdDisc  command = 2
	cmdFlush command = 3
	cmdTrim  command = 4
)

const flagFUA = 1 << 0 // what was written is to be durable before the answer

// status is the error of a reply.
type status uint32

const (
	statusOK      status = 0
	statusPerm    status = 1
	statusIO      status = 5
	statusInvalid status = 22
	statusNoSpace status = 28
)

type request struct {
	flags   uint16
	command command
	cookie  uint64 // the client's, echoed
	offset  uint64
	length  uint32
}

// decode reads a request. What it returns without an error is one that can be
// answered, though perhaps with an error: its end is known.
func decode(b *[requestSize]byte) (request, error) {
	r := request{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: command(binary.BigEndian.Uint16(b[6:])),
		cookie:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}
	switch magic := binary.BigEndian.Uint32(b[:]); {
	case magic != requestMagic:
		return r, fmt.Errorf("magic %#x: %w", magic, ErrProtocol)
	case r.command > cmdTrim:
		return r, fmt.Errorf("command %d: %w", r.command, ErrProtocol)
	case r.flags&^flagFUA != 0:
		return r, fmt.Errorf("flags %#x: %w", r.flags, ErrProtocol)
	case r.length > MaxLength && (r.command == cmdRead || r.command == cmdWrite):
		return r, fmt.Errorf("command %d of %d bytes: %w", r.command, r.length, ErrProtocol)
	}
	return r, nil
}

// check says whether the request is for what the client may have.
func (r request) check(e Export) status {
	switch r.command {
	case cmdWrite, cmdTrim:
		if e.ReadOnly {
			return statusPerm
		}
	case cmdFlush:
		return statusOK // its offset and length say nothing
	}
	// Not offset+length, which may overflow.
	size := uint64(max(e.Size, 0))
	if r.offset > size || uint64(r.length) > size-r.offset {
		return statusInvalid
	}
	return statusOK
}

// reply writes the header of an answer to b.
func (r request) reply(b []byte, s status) {
	binary.BigEndian.PutUint32(b, replyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(s))
	binary.BigEndian.PutUint64(b[8:], r.cookie)
}
