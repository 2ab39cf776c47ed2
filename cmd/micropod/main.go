// Command micropod runs OCI images in microVMs with docker's habits.
//
// It holds the command line only: one file per verb, each of which turns flags
// into one call of pkg/manager and the answer into text. It keeps no state and
// knows no VMM beyond the wiring in this file. A process lives for one verb,
// except `supervise`, which the manager starts detached, one per VM.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/micropod/micropod/pkg/firecracker"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/micropod/micropod/pkg/qemu"
	"github.com/micropod/micropod/pkg/vmm"
)

func main() {
	runAsAgent(os.Args)
	runAsGuard(os.Args)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// openManager is where the parts of MicroPod meet.
func openManager(a *app) (*manager.Manager, error) {
	root, err := a.globals.rootDir()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the path of this program: %w", err)
	}
	ids, err := firecracker.ParseIDRange(a.globals.jailIDs)
	if err != nil {
		return nil, fmt.Errorf("--jail-ids: %w", err)
	}
	return manager.Open(root, manager.Options{
		Drivers: []vmm.Driver{
			firecracker.New(firecracker.Options{
				NoJail: !a.globals.jailer, JailIDs: ids, Guard: []string{self, guardVerb}, Log: a.log,
				Templates: a.globals.templates == templatesAll,
			}),
			qemu.New(qemu.Options{Log: a.log}),
		},
		Agent:         agentFiles,
		Supervisor:    supervisorCommand(self, root, a.globals),
		Log:           a.log,
		JournalSocket: os.Getenv("MICROPOD_JOURNAL_SOCKET"),
		Warn:          func(message string) { a.warn("%s", message) },
		Debug:         a.globals.debug, NoTemplates: a.globals.templates == templatesNone,
	})
}

// supervisorCommand is the command that the manager runs, detached, for each VM;
// it appends the container's id.
func supervisorCommand(self, root string, g globals) []string {
	cmd := []string{self, "--root", root, "--log-format", g.logFormat,
		fmt.Sprintf("--jailer=%t", g.jailer), "--jail-ids", g.jailIDs}
	if g.templates != templatesEmulated {
		cmd = append(cmd, "--templates="+g.templates.String())
	}
	if g.debug {
		cmd = append(cmd, "--debug")
	}
	return append(cmd, "supervise")
}

// run executes one command line and returns its exit code.
func run(args []string, stdin, stdout, stderr *os.File) int {
	ctx, interrupts := notifyInterrupts(context.Background())
	defer interrupts.stop()
	a := &app{in: stdin, out: stdout, err: stderr, open: openManager, interrupts: interrupts}
	root := newRootCommand(a, args)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if code := interruptCode(ctx); code != 0 && err != nil {
		if !errors.Is(err, context.Canceled) && !silent(err) {
			a.report(err)
		}
		return code
	}
	return a.report(err)
}
