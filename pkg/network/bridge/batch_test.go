package bridge

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestEncode: the last message of a batch is acknowledged, and no other.
func TestEncode(t *testing.T) {
	q, err := newQueue()
	if err != nil {
		t.Fatal(err)
	}
	if batch, err := q.take(); batch != nil || err != nil {
		t.Fatalf("nothing is queued: %v, %v", batch, err)
	}
	table := q.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "t"})
	chain := q.AddChain(&nftables.Chain{Table: table, Name: "c"})
	q.AddRule(&nftables.Rule{Table: table, Chain: chain})
	batch, err := q.take()
	if err != nil {
		t.Fatal(err)
	}
	b, err := encode(batch)
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged []bool
	for len(b) > 0 {
		flags := netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:]))
		if flags&netlink.Echo != 0 {
			t.Error("a message is to come back")
		}
		acknowledged = append(acknowledged, flags&netlink.Acknowledge != 0)
		b = b[binary.NativeEndian.Uint32(b):]
	}
	if len(acknowledged) != 5 || acknowledged[0] || acknowledged[1] || acknowledged[2] || !acknowledged[3] || acknowledged[4] {
		t.Errorf("acknowledged: %v", acknowledged)
	}
	if left, err := q.take(); left != nil || err != nil {
		t.Errorf("taken twice: %v, %v", left, err)
	}
}

// TestTransact: what is wrong with any message is known, with the last one too, and then
// nothing has changed.
func TestTransact(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	good := &nftables.Table{Family: nftables.TableFamilyINet, Name: "micropod-good"}
	bad := &nftables.Table{Family: nftables.TableFamilyINet, Name: "nobody-has-it"}
	add, drop := func(q *queue) { q.AddTable(good) }, func(q *queue) { q.DelTable(bad) }
	for name, c := range map[string]struct {
		steps []func(*queue)
		want  error
	}{
		"none": {nil, nil}, "good": {[]func(*queue){add}, nil}, "first": {[]func(*queue){drop, add}, unix.ENOENT},
		"last": {[]func(*queue){add, drop}, unix.ENOENT}, "between": {[]func(*queue){add, drop, add}, unix.ENOENT},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			var there bool
			newSpace(t).do(func() error {
				tab, openErr := openTables(good.Name)
				if openErr != nil {
					return openErr
				}
				for _, step := range c.steps {
					step(tab.queue)
				}
				err = tab.flush()
				_, there, openErr = tab.reader.names(good.Family, good.Name)
				return errors.Join(openErr, tab.close())
			})
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if want := len(c.steps) > 0 && c.want == nil; there != want {
				t.Errorf("the table is there: %v, want %v", there, want)
			}
		})
	}
}
