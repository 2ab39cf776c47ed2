package network

import (
	"fmt"
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000000A	010A080A	0003	0	0	50	000000FF	0	0	0
tun0	07336433	00000000	0005	0	0	0	FFFFFFFF	0	0	0
*	000010AC	00000000	0201	0	0	0	0000F0FF	0	0	0
eth0	xx0200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth0	000200C0	00000000
`
	if got, want := fmt.Sprint(routes(strings.NewReader(table))), "[192.0.2.0/24 10.0.0.0/8 51.100.51.7/32]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
