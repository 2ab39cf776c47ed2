package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
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
	}
	testscript.Main(m, commands)
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
