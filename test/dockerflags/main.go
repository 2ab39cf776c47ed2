// Command dockerflags prints the flags of docker's commands as its client on
// this machine has them: names, shorthands and types, nothing else.
//
//	go run ./test/dockerflags >cmd/micropod/testdata/docker-flags.json
//
// It reads `docker COMMAND --help`, so it needs no engine. Flags that docker
// hides, because they are deprecated, are not among them.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// command is one of docker's, with the flags in the order of its help.
type command struct {
	Name  string `json:"name"`
	Flags []flag `json:"flags"`
}

// flag is what the help says about one. Type is empty for what stands alone.
type flag struct {
	Name      string `json:"name"`
	Shorthand string `json:"shorthand,omitempty"`
	Type      string `json:"type,omitempty"`
}

// commands are those that MicroPod has, or might.
func commands() []string {
	return []string{
		"run", "create", "exec", "cp", "logs", "ps", "attach", "start", "stop", "kill", "rm", "wait", "restart", "rename", "update",
		"pause", "unpause", "top", "stats", "events", "port", "diff", "export", "commit", "inspect", "images", "pull", "push", "tag",
		"rmi", "save", "load", "import", "history", "login", "logout", "image inspect", "image prune", "image ls", "image rm",
		"container prune", "container ls", "container inspect", "system df", "system prune", "manifest inspect", "version", "info",
		"network create", "network ls", "network inspect", "network rm", "network prune", "network connect", "network disconnect",
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dockerflags:", err)
		os.Exit(1)
	}
}

func run() error {
	version, err := docker("--version")
	if err != nil {
		return err
	}
	var all []command
	for _, name := range commands() {
		help, err := docker(append(strings.Fields(name), "--help")...)
		if err != nil {
			return err
		}
		all = append(all, command{name, parse(help)})
	}
	out, err := render(versionOf(version), all)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

// docker runs the client without anybody's configuration, whose plugins would
// add to it.
func docker(args ...string) (string, error) {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG=/nonexistent", "COLUMNS=200")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// versionOf takes the number out of "Docker version 28.2.2, build e6534b4".
func versionOf(text string) string {
	_, rest, _ := strings.Cut(text, "version ")
	number, _, _ := strings.Cut(rest, ",")
	return strings.TrimSpace(number)
}

// line matches the first line of a flag; what goes on below is indented more.
var line = regexp.MustCompile(`^(?:  -(\S), |      )--([a-z0-9][a-z0-9-]*)(?: (\S+))?(?:  .*)?$`)

// parse reads the options of a help text.
func parse(help string) []flag {
	flags := []flag{}
	_, options, _ := strings.Cut(help, "\nOptions:\n")
	for l := range strings.Lines(options) {
		l = strings.TrimRight(l, "\n")
		if l == "" {
			break
		}
		if m := line.FindStringSubmatch(l); m != nil {
			flags = append(flags, flag{Name: m[2], Shorthand: m[1], Type: m[3]})
		}
	}
	return flags
}

// render is JSON with a line for each flag.
func render(version string, all []command) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n\"docker\": %q,\n\"commands\": [", version)
	for i, c := range all {
		fmt.Fprintf(&b, "%s\n {\"name\": %q, \"flags\": [", separator(i), c.Name)
		for j, f := range c.Flags {
			text, err := json.Marshal(f)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "%s\n  %s", separator(j), text)
		}
		b.WriteString("\n ]}")
	}
	b.WriteString("\n]\n}\n")
	return b.Bytes(), nil
}

func separator(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}
