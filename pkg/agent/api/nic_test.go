package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// ethernet is a frame of KindEthernet with a payload of n bytes.
func ethernet(k Kind, n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(n)), make([]byte, n)...)
}

func TestEthernet(t *testing.T) {
	buf := make([]byte, MaxEthernet)
	for _, tt := range []struct {
		kind Kind
		size int
		ok   bool
	}{
		{KindEthernet, minEthernet, true}, {KindEthernet, MaxEthernet, true},
		{KindEthernet, 0, false}, {KindEthernet, minEthernet - 1, false}, {KindEthernet, MaxEthernet + 1, false},
		{KindStdout, minEthernet, false}, {KindOpen, MaxControl, false},
	} {
		in := ethernet(tt.kind, tt.size)
		got, err := ReadEthernet(bytes.NewReader(in), buf)
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrFrame) || tt.ok && len(got) != tt.size {
			t.Errorf("read kind %d, %d bytes: %d bytes, %v", tt.kind, tt.size, len(got), err)
		}
		if tt.kind != KindEthernet {
			continue
		}
		out := append(make([]byte, HeaderSize), in[HeaderSize:]...)
		if err := PutEthernetHeader(out); tt.ok != (err == nil) || tt.ok && !bytes.Equal(in, out) {
			t.Errorf("write %d bytes: %v", tt.size, err)
		}
	}
	if _, err := ReadEthernet(bytes.NewReader(ethernet(KindEthernet, 60)[:40]), buf); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
}

// A frame of the largest kind that is no Ethernet costs no memory.
func TestEthernetLyingKind(t *testing.T) {
	r, buf := bytes.NewReader(ethernet(KindOpen, MaxControl)), make([]byte, MaxEthernet)
	if n := testing.AllocsPerRun(10, func() { r.Seek(0, io.SeekStart); _, _ = ReadEthernet(r, buf) }); n > 10 || r.Len() != MaxControl {
		t.Errorf("%v allocations, %d bytes left of %d", n, r.Len(), MaxControl)
	}
}

func FuzzReadEthernet(f *testing.F) {
	f.Add(append(ethernet(KindEthernet, minEthernet), ethernet(KindEthernet, 1514)...))
	f.Add(ethernet(KindEthernet, MaxEthernet+1))
	f.Add([]byte{byte(KindEthernet), 0xff, 0xff, 0xff, 0xff})
	f.Add(ethernet(KindStdin, 64))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bytes.NewReader(in), make([]byte, MaxEthernet)
		var out []byte
		for {
			b, err := ReadEthernet(r, buf)
			if err != nil {
				break
			}
			frame := append(make([]byte, HeaderSize), b...)
			if err := PutEthernetHeader(frame); err != nil {
				t.Fatal(err)
			}
			out = append(out, frame...)
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatal("frames do not reproduce their bytes")
		}
	})
}
