package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/micropod/micropod/pkg/manager"
	"golang.org/x/term"
)

// app is what the verbs share: the three streams, the global flags and the
// manager, which is opened by the first verb that needs it.
type app struct {
	in       *os.File
	out, err *os.File
	globals  globals
	log      *slog.Logger
	open     func(*app) (*manager.Manager, error)

	interrupts *interrupts

	once    sync.Once
	m       *manager.Manager
	openErr error
}

// globals are the flags that stand before the verb.
type globals struct {
	root      string
	debug     bool
	logFormat string
	jailer    bool
	templates templates
	jailIDs   string
}

// rootDir is the absolute path of MicroPod's directory.
func (g globals) rootDir() (string, error) {
	if g.root != "" {
		return filepath.Abs(g.root)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the home directory (or set --root or MICROPOD_ROOT): %w", err)
	}
	return filepath.Join(home, ".config", "micropod"), nil
}

// manager opens the root once.
func (a *app) manager() (*manager.Manager, error) {
	a.once.Do(func() { a.m, a.openErr = a.open(a) })
	return a.m, a.openErr
}

// setUp applies the global flags; it runs before every verb.
func (a *app) setUp() error {
	if on, err := strconv.ParseBool(os.Getenv("MICROPOD_DEBUG")); err == nil && on {
		a.globals.debug = true
	}
	log, err := newLogger(a.err, a.globals.logFormat, a.globals.debug)
	a.log = log
	return err
}

func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "micropod: warning: %s\n", escape(fmt.Sprintf(format, args...)))
}

func (a *app) printError(err error) {
	fmt.Fprintf(a.err, "micropod: %s\n", escapeLines(err.Error()))
}

// each runs do for every argument, several at once, and prints in the order of
// the arguments: the argument where it worked, else its error.
func (a *app) each(ctx context.Context, args []string, do func(ctx context.Context, ref string) error) error {
	return a.eachValue(ctx, args, func(ctx context.Context, ref string) (string, error) {
		return ref, do(ctx, ref)
	})
}

// eachAtOnce bounds the VMs that one command line works on at the same time.
const eachAtOnce = 8

// eachValue is each for verbs that print something else than the argument.
func (a *app) eachValue(ctx context.Context, args []string, do func(ctx context.Context, ref string) (string, error)) error {
	type result struct {
		text string
		err  error
	}
	slots := make(chan struct{}, eachAtOnce)
	results := make([]chan result, len(args))
	for i, ref := range args {
		results[i] = make(chan result, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			text, err := do(ctx, ref)
			results[i] <- result{text, err}
		}()
	}
	var failed error
	for _, ch := range results {
		r := <-ch
		if r.err != nil {
			if interruptCode(ctx) == 0 {
				a.printError(r.err)
			}
			failed = &exitError{code: 1}
			continue
		}
		if r.text != "" {
			fmt.Fprintln(a.out, escape(r.text))
		}
	}
	return failed
}

func isTerminal(s any) bool {
	f, ok := s.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
