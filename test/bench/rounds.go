package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// sample is what one run of a contestant cost.
type sample struct {
	wall, cpu time.Duration // cpu is that of its own processes, not of servers
}

func (s sample) plus(o sample) sample { return sample{s.wall + o.wall, s.cpu + o.cpu} }

// contestant does its work once and says what that cost. What it needs and what
// it leaves behind is not part of it.
type contestant struct {
	name string
	run  func() (sample, error)
}

// alternate runs all contestants in turn, b.rounds times after one round that
// is not counted. The result has the samples of each contestant.
func (b *bench) alternate(cs ...contestant) ([][]sample, error) {
	all := make([][]sample, len(cs))
	first := 1
	if b.cold {
		first = 0
	}
	for round := range b.rounds + first {
		for i, c := range cs {
			if !b.cold {
				unix.Sync() // nobody pays for what another one wrote
			}
			s, err := c.run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= first {
				all[i] = append(all[i], s)
			}
		}
	}
	return all, nil
}

// timed runs a program from its start to its end; started is called in between.
func timed(cmd *exec.Cmd, started ...func()) (sample, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	err := cmd.Start()
	for _, f := range started {
		if err == nil {
			f()
		}
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, out.String())
	}
	s := cmd.ProcessState
	return sample{time.Since(begun), s.UserTime() + s.SystemTime()}, nil
}

func wall(s sample) float64 { return s.wall.Seconds() }
func cpu(s sample) float64  { return s.cpu.Seconds() }

// spread is a distribution in three numbers.
type spread struct{ least, median, most float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{v[0], (v[(n-1)/2] + v[n/2]) / 2, v[n-1]}
}

func (s spread) String() string { return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.least, s.most) }

// precise is for what repeats to a percent.
func (s spread) precise() string { return fmt.Sprintf("%.3f (%.3f-%.3f)", s.median, s.least, s.most) }

func spreadBy(samples []sample, of func(sample) float64) spread {
	var v []float64
	for _, s := range samples {
		v = append(v, of(s))
	}
	return spreadOf(v)
}

// ratio compares two contestants round by round.
func ratio(a, b []sample, of func(sample) float64) spread {
	var v []float64
	for i := range a {
		v = append(v, of(a[i])/of(b[i]))
	}
	return spreadOf(v)
}

// report prints the first contestant against each other one. The targets are
// for wall time; 0 is none.
func (b *bench) report(cs []contestant, samples [][]sample, targets []float64) error {
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tseconds: median (least-most)\tof CPU\t")
	for i, c := range cs {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", c.name, spreadBy(samples[i], wall), spreadBy(samples[i], cpu))
	}
	for i, c := range cs[1:] {
		r := ratio(samples[0], samples[i+1], wall)
		fmt.Fprintf(w, "%s / %s\t%s\t%s\t%s\n", cs[0].name, c.name, r, ratio(samples[0], samples[i+1], cpu), verdict(r.median, targets[i]))
	}
	return w.Flush()
}

// verdict says a target and whether it is met. It is text for a person: no exit
// code and no test depends on it.
func verdict(value, target float64) string {
	switch {
	case target == 0:
		return ""
	case value <= target:
		return fmt.Sprintf("at most %g: met", target)
	}
	return fmt.Sprintf("at most %g: missed", target)
}

// reached is a verdict of what has to be large.
func reached(value, target float64) string {
	switch {
	case target == 0:
		return ""
	case value >= target:
		return fmt.Sprintf("at least %g: met", target)
	}
	return fmt.Sprintf("at least %g: missed", target)
}
