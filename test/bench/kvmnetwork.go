package main

import (
	"errors"
	"fmt"
)

// networks measures what a network adds to a run that is alone in it.
func (r *kvmRunner) networks() error { return r.networksBy("", "user", "bridge") }

// networksBeside measures what a bridge network adds that another container is in: docker's
// bridge is always there.
func (r *kvmRunner) networksBeside() error {
	if _, err := r.micropod("run", "--detach", "--vmm", "firecracker", "--network", "bridge", storedImage, "sleep", "100000"); err != nil {
		return err
	}
	var err error
	if r.stay, err = children(nil); err == nil {
		err = r.networksBy(", beside a container in the bridge network", "bridge")
	}
	r.stay = nil
	return errors.Join(err, r.end())
}

// networksBy compares runs in networks of some modes with such without, in a jail and not.
func (r *kvmRunner) networksBy(beside string, modes ...string) error {
	for _, jail := range []struct {
		name  string
		flags []string
	}{{byJail, nil}, {byItself, []string{"--jailer=false"}}} {
		var cs []contestant
		for _, mode := range append([]string{"none"}, modes...) {
			cs = append(cs, contestant{"run --network " + mode, func() (sample, error) { return r.runIn(mode, jail.flags...) }})
		}
		samples, err := r.alternate(cs...)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "\n== %s, from the command to the first line of output, with a network and without%s\n", jail.name, beside)
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
