package main

import (
	"net"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// startJournald is a journald that appends what it receives to a file:
// journald SOCKET FILE
func startJournald(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: journald SOCKET FILE")
	}
	f, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unixgram"})
	ts.Check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1<<20)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			f.Write(append(b[:n], '\n'))
		}
	}()
	ts.Defer(func() {
		conn.Close()
		<-ended
		f.Close()
	})
}
