package manager

import (
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/network/bridge"
)

// TestInTheWay: each thing that another firewall drops is named, with what mends it.
func TestInTheWay(t *testing.T) {
	forward, input := []string{"ip filter FORWARD"}, []string{"ip filter INPUT", "inet fw in"}
	for _, c := range []struct {
		drops       bridge.Drops
		says, mends []string
		saysNot     string
	}{
		{drops: bridge.Drops{}},
		{bridge.Drops{TooMany: true}, []string{"too many rules"}, []string{"--network"}, "accept there"},
		{bridge.Drops{Forwarded: forward}, []string{"forwarded (ip filter FORWARD)"}, []string{"mp-*"}, "names"},
		{bridge.Drops{Received: input}, []string{"names too (ip filter INPUT, inet fw in)"}, []string{`iifname "mp-*" ct status dnat accept`}, "forwarded"},
		{bridge.Drops{Forwarded: forward, Received: input}, []string{"FORWARD", "INPUT"}, []string{"goes to them", "dnat"}, "[]"},
	} {
		what, mend := inTheWay(c.drops)
		if (what == "") != (c.says == nil) || (mend == "") != (c.mends == nil) || c.saysNot != "" && strings.Contains(what+mend, c.saysNot) {
			t.Errorf("%+v: %q, %q", c.drops, what, mend)
		}
		for _, s := range c.says {
			if !strings.Contains(what, s) {
				t.Errorf("%+v: %q does not say %q", c.drops, what, s)
			}
		}
		for _, s := range c.mends {
			if !strings.Contains(mend, s) {
				t.Errorf("%+v: %q does not say %q", c.drops, mend, s)
			}
		}
	}
}
