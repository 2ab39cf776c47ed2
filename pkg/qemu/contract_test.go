package qemu_test

import (
	"log/slog"
	"testing"

	"github.com/micropod/micropod/pkg/qemu"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest"
)

func TestContract(t *testing.T) {
	env := vmmtest.NewEnv(t)
	if a := qemu.New(qemu.Options{}).Probe(t.Context()); !a.OK {
		vmmtest.Missing(t, a.Reason)
	}
	vmmtest.Run(t, func(t *testing.T) vmm.Driver {
		return qemu.New(qemu.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	}, env)
}
