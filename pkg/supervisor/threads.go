package supervisor

import "runtime"

// narrow lets the supervisor of a VM that runs have as many processors as the VM, and
// returns what takes that back. What it does by then is to hand bytes on, from one
// goroutine to the next: on a processor of its own each takes over for less than it
// takes to wake another thread for it (docs/benchmarks.md, "Goroutines"). A boot and an
// end wait in system calls, which hold up the goroutines of the same processor; so does
// who serves the disks of a container in another one's VM.
func (s *supervisor) narrow() (widen func()) {
	if s.plan.VMOf != nil {
		return func() {}
	}
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(processors(before, s.plan.VM.CPUs))
	return func() { runtime.GOMAXPROCS(before) }
}

// processors is how many a supervisor of a VM with so many CPUs has, of those that it
// might have. Pure.
func processors(most, cpus int) int { return max(1, min(most, cpus)) }
