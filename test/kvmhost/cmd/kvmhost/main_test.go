package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/micropod/micropod/test/kvmhost"
	"github.com/micropod/micropod/test/kvmhost/inside"
)

// selfEnv makes this test binary the command itself.
const selfEnv = "KVMHOST_TEST_MAIN"

func TestMain(m *testing.M) {
	inside.Main()
	if os.Getenv(selfEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), selfEnv+"=1")
	return cmd
}

func exitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"run"}, {"run", "--user", "x", "--", "true"}, {"run", "--kernel", "/none", "--emulate", "true"}, {"walk"}} {
		out, err := command(t, args...).CombinedOutput()
		if code := exitCode(err); code != 125 || !strings.HasPrefix(string(out), "kvmhost: ") {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
}

func needKernel(t *testing.T) {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_HOST_KERNEL") != "" {
		return
	}
	const missing = "MICROPOD_TEST_HOST_KERNEL is not set (make test does)"
	if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

func TestRun(t *testing.T) {
	needKernel(t)
	cmd := command(t, "run", "--emulate", "-e", "A=b", "-w", "/usr", "-u", "12:34", "--", "sh", "-c", "cat; echo $A $(pwd) $(id -u):$(id -g) $(hostname) >&2; exit 3")
	cmd.Stdin = strings.NewReader("input")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	code := exitCode(cmd.Run())
	if want := "b /usr 12:34 kvmhost\n"; code != 3 || out.String() != "input" || errs.String() != want {
		t.Errorf("%d, %q, %q", code, out.String(), errs.String())
	}
}

func TestShell(t *testing.T) {
	needKernel(t)
	cmd := command(t, "shell", "--emulate", "--", "sh", "-c", "stty size; hostname; exit 4")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 99})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	out, _ := io.ReadAll(tty) // ends with EIO
	if code := exitCode(cmd.Wait()); code != 4 || string(out) != "33 99\r\nkvmhost\r\n" {
		t.Errorf("%d, %q", code, out)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("MICROPOD_X", "1")
	t.Setenv("OTHER", "2")
	t.Setenv("SECRET", "3")
	env := environment([]string{"OTHER", "A=b=c"})
	for _, want := range []string{"MICROPOD_X=1", "OTHER=2", "A=b=c", "PATH=" + os.Getenv("PATH")} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in %q", want, env)
		}
	}
	if slices.Contains(env, "SECRET=3") {
		t.Error("everything is passed on")
	}
}

func TestParseUser(t *testing.T) {
	for text, want := range map[string]*kvmhost.User{"": nil, "5": {UID: 5, GID: 5}, "5:6": {UID: 5, GID: 6}} {
		if got, err := parseUser(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"root", "5:", ":5", "-1", "5:6:7"} {
		if got, err := parseUser(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
