package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micropod/micropod/test/kvmhost"
	"github.com/micropod/micropod/test/networld"
)

func TestMain(m *testing.M) {
	commands := map[string]func(){"micropod": main, networld.Name: networld.Main}
	if commands[filepath.Base(os.Args[0])] == nil {
		if err := networld.Isolate(); err != nil {
			log.Fatal(err)
		}
		heedSignals()
	}
	testscript.Main(m, commands)
}

// heedSignals ends what we were told to ignore, as by nohup or by a shell that
// started us with &, for what the tests start: programs inherit it, and some tests
// send them just these signals.
func heedSignals() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// TestScript runs the scripts that need no VM. Each has a root of its own.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MICROPOD_ROOT", env.WorkDir+"/root")
			env.Setenv("ESC", "\x1b")
			micropod, err := exec.LookPath("micropod")
			if err != nil {
				return err
			}
			env.Setenv("MICROPOD", micropod)
			return nil
		},
		Cmds:          scriptCommands(),
		Condition:     condition,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// condition is one of a line of a script, as in [root] or [!emulated].
func condition(name string) (bool, error) {
	switch name {
	case "emulated":
		return kvmhost.Usable() != nil, nil
	case "root":
		return os.Geteuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %s", name)
}
