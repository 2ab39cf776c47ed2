// Command micropod-agent is PID 1 of a MicroPod guest. It is packed into the
// initramfs as /init and has no use on a host.
package main

import (
	"fmt"
	"os"

	"github.com/micropod/micropod/pkg/guest"
)

func main() {
	if !guest.IsAgent(os.Args) {
		fmt.Fprintln(os.Stderr, "micropod-agent: this is the init program of a MicroPod guest; it does nothing here")
		os.Exit(1)
	}
	os.Exit(guest.Main(os.Args))
}
