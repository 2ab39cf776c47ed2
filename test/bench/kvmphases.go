package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"
	"time"
)

// phase is a part of the way to the container's command. It ends when the agent
// says so; the first begins with InstanceStart.
type phase struct {
	name string
	end  string // of the agent's words
}

func phases() []phase {
	return []phase{
		{"kernel", "init"}, {"modules", "modules"}, {"agent: own mounts, call to the host", "connected"},
		{"mounts: clock, disks, overlay", "overlay"}, {"spec: cgroup, namespaces, root", "stage"}, {"exec", "exec"},
	}
}

const beforeKernel = "VMM, and the kernel before its clock"

// split splits a boot into its phases.
func (r *kvmRunner) split() error {
	took := map[string][]float64{}
	for range r.rounds {
		log, err := r.debugLog()
		if err != nil {
			return err
		}
		split, err := splitLog(log)
		if err != nil {
			return fmt.Errorf("%w: %s", err, log)
		}
		for name, d := range split {
			took[name] = append(took[name], d.Seconds()*1000)
		}
	}
	fmt.Fprintf(r.out, "\n== from InstanceStart to the execution of the command, in milliseconds\n")
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	for _, p := range append([]phase{{name: beforeKernel}}, phases()...) {
		fmt.Fprintf(w, "%s\t%s\t\n", p.name, spreadOf(took[p.name]).precise())
	}
	return w.Flush()
}

// debugLog is what the supervisor of a run says.
func (r *kvmRunner) debugLog() (string, error) {
	const name = "split"
	if _, err := r.micropod("--debug", "run", "--vmm", "firecracker", "--network", "none", "--name", name, storedImage, "true"); err != nil {
		return "", err
	}
	if _, err := adopted(); err != nil {
		return "", err
	}
	home, err := r.micropod("inspect", "--format", "{{.MicroPod.Dir}}", name)
	if err != nil {
		return "", err
	}
	log, err := os.ReadFile(filepath.Join(home, "supervisor.log"))
	if err != nil {
		return "", err
	}
	_, err = r.micropod("rm", name)
	return string(log), err
}

var (
	guestWord = regexp.MustCompile(`msg="guest phase done" phase=(\S+) at=(\S+)`)
	startWord = regexp.MustCompile(`msg=firecracker .*step=boot took=(\S+)`)
	helloWord = regexp.MustCompile(`msg="phase done" phase=boot duration=(\S+)`)
)

// splitLog reads how long each phase took. The guest's clock starts with its
// kernel; what was before it is known from when the hello came.
func splitLog(log string) (map[string]time.Duration, error) {
	at := map[string]time.Duration{}
	for _, m := range guestWord.FindAllStringSubmatch(log, -1) {
		d, err := time.ParseDuration(m[2])
		if err != nil {
			return nil, err
		}
		at[m[1]] = d
	}
	split := map[string]time.Duration{}
	var last time.Duration
	for _, p := range phases() {
		end, ok := at[p.end]
		if !ok {
			return nil, fmt.Errorf("the guest does not say when %q is done", p.end)
		}
		split[p.name], last = end-last, end
	}
	var hello time.Duration // since InstanceStart
	for _, word := range []*regexp.Regexp{startWord, helloWord} {
		m := word.FindStringSubmatch(log)
		if m == nil {
			return nil, fmt.Errorf("the supervisor does not say %q", word)
		}
		d, err := time.ParseDuration(m[1])
		if err != nil {
			return nil, err
		}
		hello += d
	}
	split[beforeKernel] = hello - at["connected"]
	return split, nil
}
