package main

import (
	"context"
	"os"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/state"
)

// scriptDisks are the disks that scripts serve to guests that run.
type scriptDisks struct {
	mu  sync.Mutex
	all map[string]*agent.Disk // by script and variable
}

func (s *scriptDisks) take(ts *testscript.TestScript, name string) *agent.Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.all[ts.Name()+" "+name]
	if d == nil {
		ts.Fatalf("no disk %s", name)
	}
	return d
}

// open gives a container's guest a file as a disk, until the end of the script,
// and puts its device into a variable: opendisk DEVICE ID FILE ro|rw
func (s *scriptDisks) open(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: opendisk DEVICE ID FILE ro|rw")
	}
	p := state.Paths{Dir: ts.Getenv("MICROPOD_ROOT") + "/vms/" + args[1]}
	token, err := state.ReadToken(p)
	ts.Check(err)
	flag, readOnly := os.O_RDWR, args[3] == "ro"
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(ts.MkAbs(args[2]), flag, 0)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	d, err := agent.OpenDisk(ctx, p.Vsock(), token, f, readOnly)
	ts.Check(err)
	ts.Defer(func() { d.Close(); f.Close() })
	ts.Setenv(args[0], d.Device())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[ts.Name()+" "+args[0]] = d
}

// end ends a disk, in order or at once: enddisk DEVICE detach|close
func (s *scriptDisks) end(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: enddisk DEVICE detach|close")
	}
	d := s.take(ts, args[0])
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	err := error(nil)
	if args[1] == "detach" {
		err = d.Detach(ctx)
	} else {
		err = d.Close()
	}
	if err != nil {
		ts.Logf("%v", err)
	}
	if neg != (err != nil) {
		ts.Fatalf("end of %s: %v", d.Device(), err)
	}
}
