package firecracker

import (
	"log/slog"
	"os"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest"
)

// TestContract boots VMs, so it needs KVM. `make test-firecracker` runs it where
// there is one, and MICROPOD_TEST_KVM=1 says that it is there.
func TestContract(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Binary: realBinary(t), NoJail: true, Templates: true, Guard: []string{self, guardVerb}} // for the jail see TestJailContract
	if a := New(o).Probe(t.Context()); !a.OK {
		if os.Getenv("MICROPOD_TEST_KVM") == "1" {
			t.Fatal(a.Reason)
		}
		t.Skipf("%s (make test-firecracker runs this in the KVM test host)", a.Reason)
	}
	vmmtest.Run(t, func(t *testing.T) vmm.Driver {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
		return New(o)
	}, vmmtest.NewEnv(t))
}
