package vmmtest

import (
	"os"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

// Run tests a driver against the contract of package vmm. newDriver is called
// for each VM; a driver that cannot run on this host must not get here. Run
// starts the test binary again to see what outlives it, so it must be called,
// with an Env of NewEnv, by a top-level test that does little else.
func Run(t *testing.T, newDriver func(*testing.T) vmm.Driver, env Env) {
	s := &suite{env: env, new: newDriver}
	if path := os.Getenv(childEnv); path != "" {
		s.child(t, path)
		return
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"disks", s.testDisks},
		{"shared disk", s.testSharedDisk},
		{"connections", s.testConnections},
		{"network", s.testNetwork},
		{"device", s.testDevice},
		{"vcpus", s.testCPUs},
		{"console", s.testConsole},
		{"reboot", s.testReboot},
		{"panic", s.testPanic},
		{"silent guest", s.testSilent},
		{"bad starts", s.testBadStarts},
		{"start canceled", s.testCanceled},
		{"parent death", s.testParentDeath},
	} {
		t.Run(test.name, test.run)
	}
}
