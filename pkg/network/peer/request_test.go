package peer

import (
	"bytes"
	"testing"
)

func FuzzRequest(f *testing.F) {
	r := request(80)
	r.Protocol = UDP
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic))
	f.Add([]byte(magic + "\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeRequest(again); err != nil || back != r {
			t.Errorf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for v := accepted; v <= unknown+1; v++ {
		f.Add(v.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if decodeAnswer(b) == nil && !bytes.Equal(b[len(magic)+1:], []byte{byte(accepted)}) {
			t.Errorf("%x is no yes", b)
		}
	})
}
