package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// throttleFlags limit what a VM does with its disks.
type throttleFlags struct {
	readBps, writeBps, readIOps, writeIOps throttleValue
}

func (t *throttleFlags) register(f *pflag.FlagSet) {
	t.readBps.rate, t.writeBps.rate = byteRate, byteRate
	t.readIOps.rate, t.writeIOps.rate = requestRate, requestRate
	f.Var(&t.readBps, "device-read-bps", "Limit read rate (bytes per second) from the VM's disks (PATH:RATE)")
	f.Var(&t.readIOps, "device-read-iops", "Limit read rate (IO per second) from the VM's disks (PATH:RATE)")
	f.Var(&t.writeBps, "device-write-bps", "Limit write rate (bytes per second) to the VM's disks (PATH:RATE)")
	f.Var(&t.writeIOps, "device-write-iops", "Limit write rate (IO per second) to the VM's disks (PATH:RATE)")
}

func (t *throttleFlags) apply(c *manager.HostConfig) {
	c.DeviceReadBps, c.DeviceWriteBps = t.readBps.devices, t.writeBps.devices
	c.DeviceReadIOps, c.DeviceWriteIOps = t.readIOps.devices, t.writeIOps.devices
}

// throttleValue is a list of PATH:RATE.
type throttleValue struct {
	devices []manager.ThrottleDevice
	rate    func(word, text string) (uint64, error)
}

func (v *throttleValue) Type() string { return "list" }

func (v *throttleValue) String() string {
	var words []string
	for _, d := range v.devices {
		words = append(words, fmt.Sprintf("%s:%d", d.Path, d.Rate))
	}
	return strings.Join(words, ",")
}

func (v *throttleValue) Set(s string) error {
	path, text, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return fmt.Errorf("bad format for device path: %s", s)
	}
	rate, err := v.rate(s, text)
	if err != nil {
		return err
	}
	v.devices = append(v.devices, manager.ThrottleDevice{Path: path, Rate: rate})
	return nil
}

func byteRate(word, text string) (uint64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", word)
	}
	return uint64(n), nil
}

func requestRate(word, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", word)
	}
	return n, nil
}
