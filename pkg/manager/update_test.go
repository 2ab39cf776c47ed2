package manager

import (
	"errors"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

func TestUpdateApplies(t *testing.T) {
	pids := int64(0)
	c, err := newConfig(CreateOptions{CPUs: 1.5, HostConfig: HostConfig{PidsLimit: 9}}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	o := UpdateOptions{
		MemoryBytes: 100 << 20, CPUShares: 7, CPUSetCPUs: "1", PidsLimit: &pids,
		RestartPolicy: &RestartPolicy{Name: state.RestartAlways},
	}
	if err := o.apply(&c); err != nil {
		t.Fatal(err)
	}
	h := c.HostConfig
	if c.CPUs != 2 || c.MemoryMiB != 100 || c.StorageBytes != defaultStorage || h.NanoCPUs != 15e8 || h.CPUShares != 7 ||
		h.CPUSetCPUs != "1" || h.PidsLimit != -1 || h.RestartPolicy.Name != "always" {
		t.Errorf("%+v", c)
	}
	r := o.live(&c)
	if *r.Memory.Limit != 100<<20 || *r.Pids.Limit != -1 || *r.CPU.Quota != 150000 || *r.CPU.Shares != 7 || r.CPU.Cpus != "1" {
		t.Errorf("%+v", r)
	}
	if err := (UpdateOptions{CPUs: 0.25}).apply(&c); err == nil {
		t.Error("the second of two CPUs, of which one is left") // the cpuset is 1
	}
	if (UpdateOptions{RestartPolicy: &RestartPolicy{}}).live(&c) != nil {
		t.Error("limits, where only the policy changes")
	}
	c, err = newConfig(CreateOptions{}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	if err := (UpdateOptions{CPUQuota: 250000}).apply(&c); err != nil || c.CPUs != 3 || c.MemoryMiB != defaultMemoryMiB {
		t.Errorf("a quota of two CPUs and a half: %d CPUs, %v", c.CPUs, err)
	}
	if r := limits(c.HostConfig); *r.CPU.Quota != 250000 {
		t.Errorf("%+v", r.CPU)
	}
}

func TestUpdateRefusals(t *testing.T) {
	policy := func(name string, n int) UpdateOptions {
		return UpdateOptions{RestartPolicy: &RestartPolicy{Name: name, MaximumRetryCount: n}}
	}
	for want, o := range map[string]UpdateOptions{
		"Nano CPUs and CPU Period cannot both be set":     {CPUs: 1, CPUPeriod: 100000},
		"one of which has already been set":               {CPUQuota: 50000},
		"64 MiB":                                          {MemoryBytes: 1 << 20},
		"memory reservation":                              {MemoryReservation: 1 << 40},
		"unknown policy 'x'":                              policy("x", 0),
		"can only be used with 'on-failure'":              policy("no", 1),
		"cannot be updated because AutoRemove is enabled": policy("on-failure", 1),
	} {
		c, err := newConfig(CreateOptions{CPUs: 1.5, AutoRemove: true}, testImage())
		if err != nil {
			t.Fatal(err)
		}
		err = o.apply(&c)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrConflict) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
