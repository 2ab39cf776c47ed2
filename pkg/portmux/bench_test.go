package portmux

import (
	"io"
	"testing"
)

// BenchmarkThroughput moves 64 KiB per operation from the guest to the host.
func BenchmarkThroughput(b *testing.B) {
	h, g := pair(b, nil, nil)
	l := listenOn(b, h, 1)
	c := dialTo(b, g, 1)
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 64<<10)
	b.SetBytes(int64(len(block)))
	go func() {
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, len(block))
	for b.Loop() {
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is one byte there and back on an open connection.
func BenchmarkRoundTrip(b *testing.B) {
	h, g := pair(b, nil, nil)
	l := listenOn(b, g, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(c, c)
		}
	}()
	c := dialTo(b, h, 1)
	buf := make([]byte, 1)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDial is a connection opened, answered and closed.
func BenchmarkDial(b *testing.B) {
	h, g := pair(b, nil, nil)
	l := listenOn(b, g, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for b.Loop() {
		c := dialTo(b, h, 1)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			b.Fatal(err)
		}
		c.Close()
	}
}
