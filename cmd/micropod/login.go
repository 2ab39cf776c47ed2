package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxPassword bounds what --password-stdin reads; tokens have a few kilobytes.
const maxPassword = 64 << 10

type loginFlags struct {
	user, password string
	stdin          bool
}

func newLoginCommand(a *app) *cobra.Command {
	var flags loginFlags
	c := newVerb("login [OPTIONS] [SERVER]", "Log in to a registry (Docker Hub when none is named)", arguments(0, 1), nil)
	f := c.Flags()
	f.StringVarP(&flags.password, "password", "p", "", "Password or access token")
	f.BoolVar(&flags.stdin, "password-stdin", false, "Take the password or access token from stdin")
	f.StringVarP(&flags.user, "username", "u", "", "Username")
	c.RunE = func(c *cobra.Command, args []string) error {
		if flags.stdin && c.Flags().Changed("password") {
			return errors.New("conflicting options: cannot specify both --password and --password-stdin")
		}
		return a.login(c.Context(), strings.Join(args, ""), flags)
	}
	return c
}

func (a *app) login(ctx context.Context, server string, flags loginFlags) error {
	if flags.password != "" {
		a.warn("a password on the command line is visible to other users of this machine; use --password-stdin")
	}
	if flags.stdin {
		if flags.user == "" {
			return errors.New("the --password-stdin option requires --username to be set")
		}
		password, err := io.ReadAll(io.LimitReader(a.in, maxPassword))
		if err != nil {
			return fmt.Errorf("read the password from stdin: %w", err)
		}
		flags.password = strings.TrimRight(string(password), "\r\n")
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	if flags.user == "" && flags.password == "" {
		done, err := a.storedLogin(ctx, m, server)
		if err != nil || done {
			return err
		}
	}
	if err := a.askLogin(ctx, &flags); err != nil {
		return err
	}
	plain, err := m.Login(ctx, server, flags.user, flags.password)
	if err != nil {
		return err
	}
	if plain != "" {
		a.warn("your credentials are stored unencrypted in %s; a credential helper would keep them better: https://docs.docker.com/go/credential-store/", plain)
	}
	_, err = fmt.Fprintln(a.out, "Login Succeeded")
	return err
}

// storedLogin is docker's first try, with what an earlier login left. It is
// done unless there is nothing, or a person can be asked for something better.
func (a *app) storedLogin(ctx context.Context, m *manager.Manager, server string) (done bool, err error) {
	user, ok, err := m.StoredLogin(ctx, server)
	if !ok && err == nil {
		return false, nil
	}
	fmt.Fprintf(a.out, "Authenticating with existing credentials... [Username: %s]\n", escape(user))
	if err == nil {
		_, err = fmt.Fprintln(a.out, "Login Succeeded")
		return true, err
	}
	if errors.Is(err, image.ErrUnauthorized) && isTerminal(a.in) {
		a.warn("%s", err)
		return false, nil
	}
	return true, err
}

// askLogin asks for what the flags leave open.
func (a *app) askLogin(ctx context.Context, flags *loginFlags) error {
	if flags.user != "" && flags.password != "" {
		return nil
	}
	if !isTerminal(a.in) {
		if flags.stdin {
			return errors.New("password is empty")
		}
		return errors.New("cannot perform an interactive login from a non TTY device")
	}
	for _, q := range []struct {
		words  string
		answer *string
		secret bool
	}{{"Username: ", &flags.user, false}, {"Password: ", &flags.password, true}} {
		if *q.answer != "" {
			continue
		}
		fmt.Fprint(a.out, q.words)
		line, err := readAnswer(ctx, a.in, q.secret)
		if q.secret {
			fmt.Fprintln(a.out)
		}
		if err != nil {
			return err
		}
		if *q.answer = line; line == "" {
			return fmt.Errorf("%s is required", strings.ToLower(strings.TrimSuffix(q.words, ": ")))
		}
	}
	return nil
}

// readAnswer reads a line from a terminal, a secret one without showing it. An
// interrupt leaves the terminal as it was.
func readAnswer(ctx context.Context, tty *os.File, secret bool) (string, error) {
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return "", fmt.Errorf("read the terminal's mode: %w", err)
	}
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		if secret {
			line, err := term.ReadPassword(int(tty.Fd()))
			got <- answer{string(line), err}
			return
		}
		line, err := bufio.NewReaderSize(tty, 16).ReadString('\n')
		got <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case a := <-got:
		return a.line, a.err
	case <-ctx.Done():
		return "", errors.Join(context.Cause(ctx), term.Restore(int(tty.Fd()), before))
	}
}

func newLogoutCommand(a *app) *cobra.Command {
	c := newVerb("logout [SERVER]", "Log out from a registry (Docker Hub when none is named)", arguments(0, 1), nil)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		server := strings.Join(args, "")
		if _, err := fmt.Fprintf(a.out, "Removing login credentials for %s\n", escape(image.LoginServer(server))); err != nil {
			return err
		}
		return m.Logout(c.Context(), server)
	}
	return c
}
