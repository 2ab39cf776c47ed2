package vmmtest

import (
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

// Run tests a driver against the contract of package vmm. newDriver is called
// for each VM; a driver that cannot run on this host must not get here.
func Run(t *testing.T, newDriver func(*testing.T) vmm.Driver, env Env) {
	s := &suite{env: env, new: newDriver}
	t.Run("disks", s.testDisks)
}
