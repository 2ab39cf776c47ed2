package fidelity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// engine is a program with docker's command line.
type engine struct {
	name string
	bin  string
	args []string // before the verb
	env  []string
	dir  string // where relative names of files lead
}

// result is what a command said.
type result struct {
	code           int
	stdout, stderr string
}

// do runs one command line.
func (e *engine) do(ctx context.Context, stdin string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, e.bin, slices.Concat(e.args, args)...)
	cmd.Env, cmd.Dir = append(append(os.Environ(), "PASSED=host"), e.env...), e.dir
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	var r result
	werr := cmd.Run()
	r.code, r.stdout, r.stderr = cmd.ProcessState.ExitCode(), out.String(), warning.ReplaceAllString(err.String(), "")
	var exit *exec.ExitError
	if werr != nil && (!errors.As(werr, &exit) || ctx.Err() != nil) {
		return r, fmt.Errorf("%s %s: %w", e.name, strings.Join(args, " "), errors.Join(werr, ctx.Err()))
	}
	return r, nil
}

// waitForLog follows the log of a container until it has a text.
func (e *engine) waitForLog(ctx context.Context, container, text string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.bin, slices.Concat(e.args, []string{"logs", "-f", container})...)
	cmd.Env = append(os.Environ(), e.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var log []byte
	for buf := make([]byte, 4096); !bytes.Contains(log, []byte(text)); {
		n, rerr := out.Read(buf)
		log = append(log, buf[:n]...)
		if rerr != nil {
			err = fmt.Errorf("%s: the log of %s ends without %q: %q", e.name, container, text, log)
			break
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed
	return err
}

// warning is what MicroPod says where it has no hardware virtualization.
var warning = regexp.MustCompile(`(?m)^micropod: warning: this VM is emulated.*\n`)

// must runs a command that has to succeed.
func (e *engine) must(t *testing.T, args ...string) string {
	t.Helper()
	r, err := e.do(t.Context(), "", args...)
	if err != nil || r.code != 0 {
		t.Fatalf("%s %v: exit code %d, %v\n%s%s", e.name, args, r.code, err, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}
