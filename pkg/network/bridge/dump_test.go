package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestAttributes: all that are whole, and nothing of what is not.
func TestAttributes(t *testing.T) {
	one, two := []byte{5, 0, 7, 0, 'a', 0, 0, 0}, []byte{8, 0, 9, 0x80, 0, 0, 1, 2}
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{nil, ""},
		{one, "7=a "},
		{one[:5], "7=a "},
		{append(bytes.Clone(one), two...), "7=a 9=\x00\x00\x01\x02 "},
		{append(bytes.Clone(one), two[:7]...), "7=a "},
		{append(bytes.Clone(one), 3, 0, 1, 0), "7=a "},
		{append(bytes.Clone(one), 0xff, 0xff, 1, 0), "7=a "},
	} {
		got := ""
		for of, value := range attributes(c.in) {
			got += fmt.Sprintf("%d=%s ", of, value)
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.in, got, c.want)
		}
	}
	if n, there := number(two, 9); n != 258 || !there {
		t.Errorf("%d, %v", n, there)
	}
	if _, there := number(one, 7); there {
		t.Error("a number of one byte")
	}
}

func TestEnding(t *testing.T) {
	for _, c := range []struct {
		message     []byte
		interrupted bool
		want        error
	}{
		{nil, false, nil},
		{make([]byte, 4), false, nil},
		{make([]byte, 4), true, netlink.ErrDumpInterrupted},
		{[]byte{0xfe, 0xff, 0xff, 0xff}, true, unix.ENOENT}, // little endian, as all hosts of VMs
	} {
		if got := ending(c.message, c.interrupted); !errors.Is(got, c.want) || c.want == nil && got != nil {
			t.Errorf("%v: %v, want %v", c.message, got, c.want)
		}
	}
}

// TestComment: of user data that is not whole, as only others would write it, there is
// none.
func TestComment(t *testing.T) {
	for data, want := range map[string]string{
		"": "", "\x00": "", "\x00\x03ab\x00": "ab", "\x00\x02ab": "ab", "\x00\x03ab": "",
		"\x01\x01x\x00\x02ab": "ab", "\x01\x01x": "", "\x01\xffx\x00\x02ab": "", "\x00\x00": "",
	} {
		if got := comment([]byte(data)); got != want {
			t.Errorf("%q: %q, want %q", data, got, want)
		}
	}
}
