package guest

import (
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// TestRefusesDisk: what is no disk is an error for the host, and costs the guest
// nothing.
func TestRefusesDisk(t *testing.T) {
	for name, test := range map[string]struct {
		r    *api.DiskRequest
		want string
	}{
		"none":     {nil, "no disk"},
		"empty":    {&api.DiskRequest{}, "0 bytes"},
		"negative": {&api.DiskRequest{Size: -512}, "-512 bytes"},
		"odd":      {&api.DiskRequest{Size: 4097}, "no whole sectors"},
	} {
		a := newAgent(&console{w: io.Discard}, nil)
		host, guest := net.Pipe()
		go func() { a.serveDisk(guest, test.r); guest.Close() }()
		var reply api.Reply
		if err := api.ReadMessage(host, api.KindReply, &reply); err != nil {
			t.Fatal(err)
		}
		if reply.Error == nil || reply.Error.Code != api.CodeInvalid || !strings.Contains(reply.Error.Message, test.want) {
			t.Errorf("%s: %+v", name, reply.Error)
		}
		if len(a.disks.all) != 0 {
			t.Errorf("%s: is kept", name)
		}
		host.Close()
	}
}

func TestTooManyDisks(t *testing.T) {
	a := newAgent(&console{w: io.Discard}, nil)
	for i := range maxDisks {
		a.disks.all[strings.Repeat("x", i)] = nil
	}
	if _, err := a.attachDisk(&api.DiskRequest{Size: 512}); err == nil || !strings.Contains(err.Error(), "no more than that") {
		t.Error(err)
	}
}

// TestNetlinkAttrs: what is written is read again, whatever its length is, and
// what is cut is not read beyond.
func TestNetlinkAttrs(t *testing.T) {
	want := []netlinkAttr{{1, []byte("abcde")}, {2, []byte{}}, attrU32(3, 7), attrU64(4, 1<<40), {5, []byte("x")}}
	b := appendAttrs(nil, want...)
	if len(b)%unix.NLA_ALIGNTO != 0 {
		t.Errorf("%d bytes", len(b))
	}
	if got := parseAttrs(b); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for n := range b {
		if got := parseAttrs(slices.Clip(b[:n])); len(got) > len(want) || n < len(b)-3 && len(got) == len(want) {
			t.Errorf("cut at %d: %v", n, got)
		}
	}
	nested := attrNested(7, attrNested(1, attrU32(1, 9)))
	outer := parseAttrs(appendAttrs(nil, nested))
	if len(outer) != 1 || outer[0].kind != 7 || !reflect.DeepEqual(parseAttrs(parseAttrs(outer[0].value)[0].value), []netlinkAttr{attrU32(1, 9)}) {
		t.Errorf("nested: %v", outer)
	}
}

// TestGenetlink: the kernel itself understands the messages: it knows its own
// controller, and no family that there is not.
func TestGenetlink(t *testing.T) {
	g, err := openGenetlink("nlctrl")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if g.family != unix.GENL_ID_CTRL {
		t.Errorf("family %d", g.family)
	}
	if _, err := openGenetlink("nosuchfamily"); err == nil || !strings.Contains(err.Error(), errNoFamily.Error()) {
		t.Error(err)
	}
}
