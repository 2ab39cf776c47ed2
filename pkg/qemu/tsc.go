package qemu

import (
	"math"
	"time"
)

// An emulated CPU's time stamp counter is the host's, and it is the guest's
// only clock: microvm has ACPI in its hardware-reduced form, with which Linux
// sets up no other timer. The kernel calibrates it against the PIT in a loop
// that a busy host disturbs; when that fails three times in a row the guest
// hangs for good. So the host measures the frequency and tells the kernel
// (tsc_early_khz), which also saves the calibration. And the kernel must not
// judge the counter by its own late timer ticks, to fall back to a clock that
// is not there (tsc=reliable).

// tscMoment is a reading of the counter and of the clock at the same time.
type tscMoment struct {
	ticks uint64
	at    time.Time
}

// The two readings must lie so far apart that the uncertainty of each, well
// below a microsecond, makes no difference: 20 ms give some ppm.
const tscInterval = 20 * time.Millisecond

// readTSC takes the tightest of some readings: between the two clocks this
// thread may lose the CPU.
func readTSC() tscMoment {
	var best tscMoment
	width := time.Duration(math.MaxInt64)
	for range 16 {
		before := time.Now()
		ticks := rdtsc()
		if w := time.Since(before); w < width {
			width, best = w, tscMoment{ticks, before.Add(w / 2)}
		}
	}
	return best
}

// khz is the frequency since the moment m; it sleeps if m is too near.
func (m tscMoment) khz() int {
	if d := tscInterval - time.Since(m.at); d > 0 {
		time.Sleep(d)
	}
	now := readTSC()
	return int(math.Round(float64(now.ticks-m.ticks) / now.at.Sub(m.at).Seconds() / 1e3))
}
