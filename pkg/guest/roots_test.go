package guest

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// TestFollowHoldsRoot: a root file system is in use until its container can be
// started anew.
func TestFollowHoldsRoot(t *testing.T) {
	a := newAgent(&console{w: io.Discard}, nil)
	a.state = setUp
	r, err := a.reserveRoot(&control{}, "c2")
	if err != nil {
		t.Fatal(err)
	}
	host, guest := net.Pipe()
	host.Close()
	exited := make(chan syscall.WaitStatus, 1)
	exited <- 0
	p := newProcess("c2", &control{conn: guest})
	p.exited, p.root, p.io = exited, r, a.slot("c2")
	a.procs["c2"] = p
	output, held, err := newPipe(true)
	if err != nil {
		t.Fatal(err)
	}
	p.out = []pipe{{api.KindStdout, output}}
	p.io.run(nil, false)
	p.io.discard()
	go a.follow(p)
	<-p.life.Done()
	if r.unused(50 * time.Millisecond) {
		t.Error("its output is still read, and the root file system is not in use")
	}
	held.Close()
	if !r.unused(time.Minute) {
		t.Fatal("the root file system is still in use")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.procs["c2"] != nil {
		t.Error("the container is here, and its root file system is not in use")
	}
}
