package main

import "fmt"

// networks measures what a network adds to a run.
func (r *kvmRunner) networks() error {
	in := func(mode string, flags ...string) contestant {
		return contestant{"run --network " + mode, func() (sample, error) { return r.runIn(mode, flags...) }}
	}
	for _, jail := range []struct {
		name  string
		flags []string
	}{{byJail, nil}, {byItself, []string{"--jailer=false"}}} {
		cs := []contestant{in("none", jail.flags...), in("user", jail.flags...), in("bridge", jail.flags...)}
		samples, err := r.alternate(cs...)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "\n== %s, from the command to the first line of output, with a network and without\n", jail.name)
		for i, c := range cs {
			fmt.Fprintf(r.out, "%s: %s s\n", c.name, spreadBy(samples[i], wall).precise())
			if i > 0 {
				ratio := ratio(samples[i], samples[0], wall)
				fmt.Fprintf(r.out, "%s / %s: %s; %s\n", c.name, cs[0].name, ratio.precise(), verdict(ratio.median, 1.02))
			}
		}
	}
	return nil
}
