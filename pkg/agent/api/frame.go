package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Kind says what a frame carries.
type Kind byte

// Kinds of frames. Control frames are JSON, the others raw bytes.
const (
	KindHello   Kind = 1 // guest -> host, Hello
	KindOpen    Kind = 2 // host -> guest, Open
	KindRequest Kind = 3 // host -> guest, Request
	KindReply   Kind = 4 // guest -> host, Reply
	KindExit    Kind = 5 // guest -> host, Exit
	KindStdin   Kind = 16
	KindStdout  Kind = 17
	KindStderr  Kind = 18
	// KindEthernet is for both directions of a connection of PurposeNIC; see EthernetHeader.
	KindEthernet Kind = 19
)

// Stream is the kind of a stdio frame: one of a process's three streams. On a
// stdio connection the guest sends Stdout and Stderr, the host Stdin.
type Stream = Kind

// Streams.
const (
	Stdin  Stream = KindStdin
	Stdout Stream = KindStdout
	Stderr Stream = KindStderr
)

// String names a stream, or numbers a kind.
func (k Kind) String() string {
	switch k {
	case KindStdin:
		return "stdin"
	case KindStdout:
		return "stdout"
	case KindStderr:
		return "stderr"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// ErrFrame is wrapped by errors about a frame that breaks the protocol.
var ErrFrame = errors.New("protocol violation")

// HeaderSize is what stands before the payload of a frame, in bytes.
const HeaderSize = 5

// limit returns the largest payload of a kind, and whether the kind exists.
func (k Kind) limit() (int, bool) {
	switch k {
	case KindHello, KindReply, KindExit:
		return MaxReply, true
	case KindOpen, KindRequest:
		return MaxControl, true
	case KindStdin, KindStdout, KindStderr:
		return MaxData, true
	case KindEthernet:
		return MaxEthernet, true
	}
	return 0, false
}

// WriteFrame writes one frame with a single Write. An empty payload of a stdio
// kind is that stream's end of file. Not safe for concurrent use of one w.
func WriteFrame(w io.Writer, k Kind, payload []byte) error {
	limit, ok := k.limit()
	if !ok || len(payload) > limit {
		return fmt.Errorf("write frame of kind %d, %d bytes: %w", k, len(payload), ErrFrame)
	}
	buf := make([]byte, HeaderSize+len(payload))
	buf[0] = byte(k)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	copy(buf[HeaderSize:], payload)
	_, err := w.Write(buf)
	return err
}

// ReadFrame reads one frame. The payload is valid until the next call if buf
// was large enough, else freshly allocated; memory grows only with the bytes
// that really arrive. io.EOF means that the peer closed between two frames.
func ReadFrame(r io.Reader, buf []byte) (Kind, []byte, error) {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	k := Kind(head[0])
	n := binary.BigEndian.Uint32(head[1:])
	limit, ok := k.limit()
	if !ok || uint64(n) > uint64(limit) {
		return 0, nil, fmt.Errorf("read frame of kind %d, %d bytes: %w", k, n, ErrFrame)
	}
	payload, err := readPayload(r, buf, int(n))
	if err != nil {
		return 0, nil, fmt.Errorf("read frame of kind %d: %w", k, err)
	}
	return k, payload, nil
}

// readPayload reads n bytes, growing in steps so that a lying length costs
// nothing before its bytes arrive.
func readPayload(r io.Reader, buf []byte, n int) ([]byte, error) {
	if n <= cap(buf) {
		buf = buf[:n]
		_, err := io.ReadFull(r, buf)
		return buf, unexpected(err)
	}
	buf = nil
	for len(buf) < n {
		start := len(buf)
		buf = append(buf, make([]byte, min(n-start, MaxData))...)
		if _, err := io.ReadFull(r, buf[start:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return buf, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteMessage writes v as the JSON payload of a control frame.
func WriteMessage(w io.Writer, k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame of kind %d: %w", k, err)
	}
	return WriteFrame(w, k, b)
}

// ReadMessage reads a frame that must be of kind k into v.
func ReadMessage(r io.Reader, k Kind, v any) error {
	got, b, err := ReadFrame(r, nil)
	if err != nil {
		return err
	}
	if got != k {
		return fmt.Errorf("frame of kind %d where %d belongs: %w", got, k, ErrFrame)
	}
	return Decode(b, v)
}

// Decode decodes a control payload.
func Decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode message: %w: %w", ErrFrame, err)
	}
	return nil
}
