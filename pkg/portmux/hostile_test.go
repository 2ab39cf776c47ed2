package portmux

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// frame is one of yamux's, as a hostile guest would write it.
func frame(kind byte, flags uint16, id, length uint32, body ...byte) []byte {
	h := []byte{0, kind}
	h = binary.BigEndian.AppendUint16(h, flags)
	h = binary.BigEndian.AppendUint32(h, id)
	h = binary.BigEndian.AppendUint32(h, length)
	return append(h, body...)
}

func syn(id uint32, port uint32) []byte {
	return frame(typeData, flagSYN, id, 4, binary.BigEndian.AppendUint32(nil, port)...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestHostileGuest(t *testing.T) {
	many := func(n int, f func(id uint32) []byte) []byte {
		var b []byte
		for i := range n {
			b = append(b, f(uint32(2*i+2))...)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"ping":                     frame(typePing, flagSYN, 0, 1),
		"stream of the host's":     syn(1, 7),
		"stream 0":                 syn(0, 7),
		"stream opened twice":      join(syn(2, 7), syn(2, 7)),
		"unknown version":          {9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"unknown type":             frame(9, 0, 0, 0),
		"too many streams":         many(maxInbound+1, func(id uint32) []byte { return syn(id, 7) }),
		"too many, half closed":    many(maxInbound+1, func(id uint32) []byte { return frame(typeWindow, flagSYN|flagFIN, id, 0) }),
		"more than the window":     join(syn(2, 7), frame(typeData, 0, 2, 1<<20), make([]byte, 1<<20)),
		"go away for a bad reason": frame(3, 0, 0, 77),
		"two ends of a stream":     join(syn(2, 7), frame(typeWindow, flagFIN, 2, 0), frame(typeWindow, flagFIN, 2, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			a, guest := socketPair(t)
			h, err := Host(a)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			l := listenOn(t, h, 7) // accepts and holds: no stream ends by itself
			go func() {
				for {
					if _, err := l.Accept(); err != nil {
						return
					}
				}
			}()
			go io.Copy(io.Discard, guest)
			guest.Write(b) // may fail half way, when the host has had enough
			select {
			case <-h.Done():
			case <-time.After(time.Minute):
				t.Fatal("the session goes on")
			}
		})
	}
}

// A guest that opens, fills and half-closes streams for ever, and never reads,
// must not make the host grow.
func TestHostileGuestMemory(t *testing.T) {
	a, guest := socketPair(t)
	h, err := Host(a)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	go func() {
		defer guest.Close()
		fill := make([]byte, 256<<10-4)
		for id := uint32(2); ; id += 2 {
			b := join(syn(id, 7), frame(typeData, 0, id, uint32(len(fill))), fill, frame(typeWindow, flagFIN, id, 0))
			if _, err := guest.Write(b); err != nil {
				return
			}
			if id > 8*maxInbound {
				return
			}
		}
	}()
	<-h.Done()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if limit := uint64(maxInbound * 1 << 20); m.HeapInuse > limit {
		t.Errorf("%d MiB in use, want below %d", m.HeapInuse>>20, limit>>20)
	}
}

// FuzzHost feeds raw bytes to the host's end.
func FuzzHost(f *testing.F) {
	f.Add([]byte{})
	f.Add(syn(2, 7))
	f.Add(join(syn(2, 7), frame(typeData, 0, 2, 5, 'h', 'e', 'l', 'l', 'o'), frame(typeWindow, flagFIN, 2, 0)))
	f.Add(join(syn(2, 8), frame(typeWindow, flagRST, 2, 0), syn(2, 7)))
	f.Add(frame(typeWindow, 2, 1, 1<<31))
	f.Add(join(frame(typeWindow, 2, 1, 0), frame(typeData, 0, 1, 1, 0), frame(typeWindow, flagFIN, 1, 0)))
	f.Add(frame(typeData, 0, 4, 0xffffffff))
	f.Add(frame(3, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, guest := net.Pipe()
		h, err := Host(a, WithHandler(func(port uint32) (func(net.Conn), error) {
			if port == 8 {
				return nil, ErrRefused
			}
			return func(c net.Conn) { io.Copy(c, c); c.Close() }, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, guest)
		go h.Dial(t.Context(), 1)
		guest.SetWriteDeadline(time.Now().Add(10 * time.Second))
		guest.Write(b)
		guest.Close()
		<-h.Done()
		h.Close()
	})
}
