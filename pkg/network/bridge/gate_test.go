package bridge

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Signals of Go's runtime come at any time.
func TestLoadBesideSignals(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("eBPF programs need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, done, ended := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG)
			}
		}
	}()
	defer func() { close(done); <-ended }()
	for i := range 2000 {
		f, err := loadProgram(gateProgram())
		if err != nil {
			t.Fatalf("load %d: %v", i, err)
		}
		f.Close()
	}
}
