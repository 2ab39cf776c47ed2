// Command kvmhost runs commands on a machine with KVM: this one, or where it has
// none a small emulated one that is booted for them (see package kvmhost).
//
//	kvmhost run [FLAGS] -- COMMAND [ARG...]
//	kvmhost shell [FLAGS] [-- COMMAND [ARG...]]
//
// shell gives the command, which is a shell unless named, this terminal.
// The exit code is the command's, or 125 when there is no host.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/micropod/micropod/test/kvmhost"
	"github.com/micropod/micropod/test/kvmhost/inside"
)

func main() {
	inside.Main()
	f := &flags{}
	root := &cobra.Command{Use: "kvmhost", Short: "Run commands on a machine with KVM, emulated if need be", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(f.command("run [FLAGS] -- COMMAND [ARG...]", "Run a command", false), f.command("shell [FLAGS] [-- COMMAND [ARG...]]", "Start a shell on this terminal", true))
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "kvmhost:", err)
		os.Exit(125)
	}
	os.Exit(f.code)
}

// flags are those of both commands, and the exit code.
type flags struct {
	options kvmhost.Options
	env     []string
	dir     string
	user    string
	code    int
}

func (f *flags) command(use, short string, shell bool) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1)}
	if shell {
		c.Args = cobra.ArbitraryArgs
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{"bash", "-i"}
		}
		return f.run(c.Context(), args, shell)
	}
	c.Flags().StringVar(&f.options.Kernel, "kernel", "", "the host's kernel (default $MICROPOD_TEST_HOST_KERNEL)")
	c.Flags().StringArrayVar(&f.options.Show, "show", nil, "directory below /tmp or /var/tmp to be seen in the host")
	c.Flags().StringArrayVar(&f.options.Writable, "writable", nil, "directory to be seen and written in the host")
	c.Flags().IntVar(&f.options.MemoryMiB, "memory", 4096, "memory of the host in MiB")
	c.Flags().IntVar(&f.options.CPUs, "cpus", 1, "CPUs of the host")
	c.Flags().BoolVar(&f.options.VirtualClock, "virtual-clock", false, "let the host's clock count instructions (one CPU)")
	c.Flags().BoolVar(&f.options.Emulate, "emulate", false, "boot a host even where this machine has KVM")
	c.Flags().StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE, or NAME to take the value from here; PATH, HOME, TERM, LANG and MICROPOD_* are taken anyway")
	c.Flags().StringVarP(&f.dir, "dir", "w", "/", "directory to run in")
	c.Flags().StringVarP(&f.user, "user", "u", "", "UID[:GID] to run as, with the group of /dev/kvm")
	return c
}

func (f *flags) run(ctx context.Context, args []string, shell bool) error {
	user, err := parseUser(f.user)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	host, err := kvmhost.Start(ctx, f.options)
	if err != nil {
		return err
	}
	defer host.Close()
	c := kvmhost.Command{Args: args, Env: environment(f.env), Dir: f.dir, User: user, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if shell {
		restore, err := onTerminal(&c, host.Emulated)
		if err != nil {
			return err
		}
		defer restore()
	}
	f.code, err = host.Run(ctx, c)
	if errors.Is(err, context.Canceled) {
		f.code, err = 130, nil
	}
	return err
}

// onTerminal gives the command this terminal, in raw mode when there is another
// one at the other end.
func onTerminal(c *kvmhost.Command, emulated bool) (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("standard input is no terminal")
	}
	sizes := make(chan kvmhost.Size)
	c.Terminal = &kvmhost.Terminal{Size: sizeOf(fd), Resize: sizes}
	if !emulated {
		return func() {}, nil
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for range changed {
			sizes <- sizeOf(fd)
		}
	}()
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() { term.Restore(fd, state) }, nil
}

func sizeOf(fd int) kvmhost.Size {
	cols, rows, _ := term.GetSize(fd) // 0 where it has none
	return kvmhost.Size{Rows: uint16(rows), Cols: uint16(cols)}
}

func environment(extra []string) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "PATH", "HOME", "TERM", "LANG":
			env = append(env, e)
		default:
			if strings.HasPrefix(name, "MICROPOD_") {
				env = append(env, e)
			}
		}
	}
	for _, e := range extra {
		if !strings.Contains(e, "=") {
			e += "=" + os.Getenv(e)
		}
		env = append(env, e)
	}
	return env
}

func parseUser(s string) (*kvmhost.User, error) {
	if s == "" {
		return nil, nil
	}
	uid, gid, both := strings.Cut(s, ":")
	if !both {
		gid = uid
	}
	u, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", s, err)
	}
	g, err := strconv.ParseUint(gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", s, err)
	}
	return &kvmhost.User{UID: uint32(u), GID: uint32(g)}, nil
}
