package main

import (
	"fmt"
	"time"
)

// manyVMs is how many VMs are started.
const manyVMs = 8

// many starts VMs one after another, while the earlier ones run.
func (r *kvmRunner) many() error {
	vms := manyVMs
	if r.cold {
		vms = 2
	}
	var seconds []float64
	for range vms {
		begun := time.Now()
		if _, err := r.micropod("run", "--detach", "--rm", "--memory", "128m", "--vmm", "firecracker", "--network", "none", storedImage, "sleep", "100000"); err != nil {
			return err
		}
		seconds = append(seconds, time.Since(begun).Seconds())
	}
	fmt.Fprintf(r.out, "\n== micropod run --detach of %d VMs, one after another, all of them running, in seconds\n", vms)
	for i, s := range seconds {
		fmt.Fprintf(r.out, "VM %d: %.3f\n", i+1, s)
	}
	fmt.Fprintf(r.out, "the last VM / the first VM: %.3f\n", seconds[vms-1]/seconds[0])
	fmt.Fprintf(r.out, "growth from one VM to the next, of the first: %+.2f%%\n", 100*slope(seconds)/seconds[0])
	return r.end()
}

// slope is that of the line through values with the least squares.
func slope(values []float64) float64 {
	n := float64(len(values))
	var x, y, xy, xx float64
	for i, v := range values {
		at := float64(i)
		x, y, xy, xx = x+at, y+v, xy+at*v, xx+at*at
	}
	return (n*xy - x*y) / (n*xx - x*x)
}
