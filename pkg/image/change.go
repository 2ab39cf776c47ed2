package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/signal"
)

// maxPorts bounds what EXPOSE with ranges expands to: all ports of one protocol.
const maxPorts = 1 << 16

// applyChanges applies instructions of a Dockerfile to an image's settings: those
// that docker import and docker commit take, with docker's rules for words,
// quotes and variables.
func applyChanges(c *Settings, changes []string) error {
	a := &changer{c: c}
	for _, change := range changes {
		for line := range strings.SplitSeq(strings.ReplaceAll(change, "\\\n", ""), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if err := a.apply(line); err != nil {
				return fmt.Errorf("%w: change %q: %w", ErrReference, clip(line), err)
			}
		}
	}
	return nil
}

type changer struct {
	c      *Settings
	cmdSet bool
}

func (a *changer) apply(line string) error {
	name, rest := cutWord(line)
	apply := map[string]func(string) error{
		"CMD": a.cmd, "ENTRYPOINT": a.entrypoint, "ENV": a.env, "LABEL": a.label, "EXPOSE": a.expose,
		"USER": a.user, "WORKDIR": a.workdir, "VOLUME": a.volume, "STOPSIGNAL": a.stopSignal,
		"ONBUILD": a.onBuild, "HEALTHCHECK": a.healthcheck,
	}[strings.ToUpper(name)]
	if apply == nil {
		return fmt.Errorf("%s is not a valid change command", clip(name))
	}
	if rest == "" {
		return fmt.Errorf("%s requires at least one argument", strings.ToUpper(name))
	}
	return apply(rest)
}

// execForm reads a command that is a JSON array of words.
func execForm(s string) (words []string, ok bool) {
	return words, json.Unmarshal([]byte(s), &words) == nil && words != nil
}

// command is the exec form, or else a line for the shell.
func command(s string) []string {
	if list, ok := execForm(s); ok {
		return list
	}
	return []string{"/bin/sh", "-c", s}
}

func (a *changer) cmd(s string) error {
	a.c.Cmd, a.cmdSet = command(s), true
	return nil
}

// entrypoint drops the CMD of the image below: it was meant for another
// entrypoint.
func (a *changer) entrypoint(s string) error {
	a.c.Entrypoint = command(s)
	if !a.cmdSet {
		a.c.Cmd = nil
	}
	return nil
}

// pairs reads "K=V K2=V2", or the old form "K V".
func (a *changer) pairs(s string) ([][2]string, error) {
	words, err := splitWords(s)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(words[0], "=") {
		key, value := words[0], strings.TrimSpace(strings.TrimPrefix(s, words[0]))
		if value == "" {
			return nil, fmt.Errorf("%s has no value", clip(key))
		}
		words = []string{key + "=" + value}
	}
	var all [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE", clip(w))
		}
		if key, err = a.expand(key); err != nil {
			return nil, err
		}
		if value, err = a.expand(value); err != nil {
			return nil, err
		}
		if key == "" || strings.ContainsRune(key+value, 0) {
			return nil, fmt.Errorf("%q is not KEY=VALUE", clip(w))
		}
		all = append(all, [2]string{key, value})
	}
	return all, nil
}

func (a *changer) env(s string) error {
	pairs, err := a.pairs(s)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		entry := p[0] + "=" + p[1]
		i := slices.IndexFunc(a.c.Env, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") })
		if i < 0 {
			a.c.Env = append(a.c.Env, entry)
		} else {
			a.c.Env[i] = entry
		}
	}
	return nil
}

func (a *changer) label(s string) error {
	pairs, err := a.pairs(s)
	if err != nil {
		return err
	}
	if a.c.Labels == nil {
		a.c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		a.c.Labels[p[0]] = p[1]
	}
	return nil
}

func (a *changer) expose(s string) error {
	words, err := a.words(s)
	if err != nil {
		return err
	}
	if a.c.ExposedPorts == nil {
		a.c.ExposedPorts = map[string]struct{}{}
	}
	for _, w := range words {
		ports, err := ParsePorts(w)
		if err != nil {
			return err
		}
		for _, p := range ports {
			a.c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

// ParsePorts reads the port of EXPOSE, "80", "80/udp" or "80-82/tcp", as one or
// more of docker's form, "80/tcp". Not every builder writes that form.
func ParsePorts(s string) ([]string, error) {
	numbers, proto, ok := strings.Cut(strings.ToLower(s), "/")
	if !ok {
		proto = "tcp"
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	known := slices.Contains([]string{"tcp", "udp", "sctp"}, proto)
	if err1 != nil || err2 != nil || from > to || to-from >= maxPorts || !known {
		return nil, fmt.Errorf("invalid port %q", clip(s))
	}
	var all []string
	for p := from; p <= to; p++ {
		all = append(all, strconv.FormatUint(p, 10)+"/"+proto)
	}
	return all, nil
}

func (a *changer) user(s string) (err error) {
	a.c.User, err = a.one(s)
	return err
}

func (a *changer) workdir(s string) error {
	dir, err := a.expand(s)
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", a.c.WorkingDir, dir)
	}
	a.c.WorkingDir = path.Clean(dir)
	return nil
}

func (a *changer) volume(s string) error {
	list, ok := execForm(s)
	if !ok {
		var err error
		if list, err = a.words(s); err != nil {
			return err
		}
	}
	if a.c.Volumes == nil {
		a.c.Volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return errors.New("VOLUME is empty")
		}
		a.c.Volumes[v] = struct{}{}
	}
	return nil
}

func (a *changer) stopSignal(s string) error {
	sig, err := a.one(s)
	if err != nil {
		return err
	}
	if _, err := signal.ParseSignal(sig); err != nil {
		return err
	}
	a.c.StopSignal = sig
	return nil
}

func (a *changer) onBuild(s string) error {
	name, _ := cutWord(s)
	switch name = strings.ToUpper(name); name {
	case "ONBUILD", "FROM", "MAINTAINER":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", name)
	}
	a.c.OnBuild = append(a.c.OnBuild, s)
	return nil
}

func (a *changer) healthcheck(s string) error {
	h, options := &Healthcheck{}, false
	word, rest := cutWord(s)
	for ; strings.HasPrefix(word, "--"); word, rest = cutWord(rest) {
		if err := h.option(word[2:]); err != nil {
			return err
		}
		options = true
	}
	list, isList := execForm(rest)
	switch kind := strings.ToUpper(word); {
	case kind == "NONE" && rest == "" && !options:
		h.Test = []string{"NONE"}
	case kind == "CMD" && isList && len(list) > 0:
		h.Test = append([]string{"CMD"}, list...)
	case kind == "CMD" && !isList && rest != "":
		h.Test = []string{"CMD-SHELL", rest}
	default:
		return errors.New("a health check is NONE, or [OPTIONS] CMD and a command")
	}
	a.c.Healthcheck = h
	return nil
}

func (h *Healthcheck) option(s string) error {
	name, value, _ := strings.Cut(s, "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("--retries=%s is no number of 0 or more", clip(value))
		}
		h.Retries = n
		return nil
	}
	into := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}[name]
	if into == nil {
		return fmt.Errorf("unknown flag --%s", clip(name))
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < time.Millisecond {
		return fmt.Errorf("--%s=%s is no time of 1ms or more", name, clip(value))
	}
	*into = d
	return nil
}
