package peer

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
)

// Protocols of a request.
const (
	TCP  Protocol = 1
	UDP  Protocol = 2
	ICMP Protocol = 3 // echo requests and their answers
)

// Protocol is what the connection is between the guests.
type Protocol byte

// Request says which connection is wanted. It is the first message.
type Request struct {
	Protocol Protocol
	// Network is the id of the network of both guests: 64 characters of [0-9a-f].
	Network string
	// From is the guest that connects, as the other shall see it; To the one that is
	// asked. Their ports are 0 with ICMP, and never else.
	From, To netip.AddrPort
}

// A request is of fixed size: magic, version, protocol, network, and twice an
// address (IPv4 in IPv6's form, RFC 4291 section 2.5.5.2) with a port. Numbers are
// big-endian.
const (
	magic       = "mpPR"
	version     = 1
	networkSize = 32
	placeSize   = 16 + 2
	requestSize = len(magic) + 2 + networkSize + 2*placeSize
)

var (
	errNoRequest = errors.New("not a request of a peer")
	errVersion   = errors.New("request of another version")
)

func (r Request) encode() ([]byte, error) {
	id, err := hex.DecodeString(r.Network)
	if err != nil || len(id) != networkSize {
		return nil, fmt.Errorf("network %q: not an id", r.Network)
	}
	b := append(make([]byte, 0, requestSize), magic...)
	b = append(b, version, byte(r.Protocol))
	b = append(b, id...)
	for _, p := range []netip.AddrPort{r.From, r.To} {
		if !p.IsValid() {
			return nil, fmt.Errorf("no address in request from %s to %s", r.From, r.To)
		}
		a := p.Addr().As16()
		b = binary.BigEndian.AppendUint16(append(b, a[:]...), p.Port())
	}
	return b, nil
}

// decodeRequest reads what somebody sent. Pure.
func decodeRequest(b []byte) (Request, error) {
	if len(b) < len(magic)+1 || string(b[:len(magic)]) != magic {
		return Request{}, errNoRequest
	}
	b = b[len(magic):]
	if b[0] != version {
		return Request{}, errVersion
	}
	if len(b) != requestSize-len(magic) {
		return Request{}, errNoRequest
	}
	r := Request{Protocol: Protocol(b[1]), Network: hex.EncodeToString(b[2 : 2+networkSize])}
	b = b[2+networkSize:]
	r.From, r.To = decodePlace(b), decodePlace(b[placeSize:])
	if !r.complete() {
		return Request{}, errNoRequest
	}
	return r, nil
}

// complete reports whether a request has what its protocol needs.
func (r Request) complete() bool {
	switch r.Protocol {
	case TCP, UDP:
		return r.From.Port() != 0 && r.To.Port() != 0
	case ICMP:
		return r.From.Port() == 0 && r.To.Port() == 0
	}
	return false
}

func decodePlace(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
}

// verdict is the answer to a request.
type verdict byte

const (
	accepted verdict = iota
	refused          // the guest has nobody there
	silent           // the guest does not answer
	stranger         // the network or the address is not of a guest here
	busy             // too many connections
	unknown          // the request is not understood
)

// Errors of a connection that is not made.
var (
	// ErrRefused says that the other guest is not there, or has nobody at the port.
	ErrRefused = errors.New("connection refused by the other guest")
	// ErrBusy says that the other guest has as many connections as it may have.
	ErrBusy = errors.New("the other guest has too many connections")
)

// answerSize never changes: a version that does not know a request says so.
const answerSize = len(magic) + 2

func (v verdict) encode() []byte { return append([]byte(magic), version, byte(v)) }

// decodeAnswer is what became of a request. Pure.
func decodeAnswer(b []byte) error {
	if len(b) != answerSize || string(b[:len(magic)]) != magic {
		return errors.New("not an answer of a peer")
	}
	switch v := verdict(b[len(magic)+1]); v {
	case accepted:
		return nil
	case refused:
		return ErrRefused
	case silent:
		return errSilent
	case stranger:
		return fmt.Errorf("%w: it is not in this network", ErrRefused)
	case busy:
		return ErrBusy
	case unknown:
		return fmt.Errorf("%w: its supervisor speaks version %d, this one %d", ErrRefused, b[len(magic)], version)
	default:
		return fmt.Errorf("%w: verdict %d", ErrRefused, v)
	}
}
