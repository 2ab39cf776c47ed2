package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newTopCommand(a *app) *cobra.Command {
	c := newVerb("top CONTAINER [ps OPTIONS]", "Display the running processes of a container", arguments(1, -1), nil)
	c.Flags().SetInterspersed(false)
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning)
	c.RunE = func(c *cobra.Command, args []string) error {
		columns, err := psColumns(args[1:])
		if err != nil {
			return err
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		processes, err := m.Processes(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printProcesses(columns, processes, time.Now())
	}
	return c
}

// psColumn is a column of ps: its title and what it shows of a process.
type psColumn struct {
	title string
	value func(p manager.Process, now time.Time) string
}

// psNames are the columns by ps's names for its -o.
func psNames() map[string]psColumn {
	uid := func(p manager.Process, _ time.Time) string { return userName(p.UID) }
	command := func(p manager.Process, _ time.Time) string { return escape(p.Command) }
	tty := func(p manager.Process, _ time.Time) string { return escape(p.TTY) }
	return map[string]psColumn{
		"uid":  {"UID", func(p manager.Process, _ time.Time) string { return strconv.Itoa(p.UID) }},
		"user": {"USER", uid}, "euser": {"EUSER", uid},
		"pid":   {"PID", func(p manager.Process, _ time.Time) string { return strconv.Itoa(p.PID) }},
		"ppid":  {"PPID", func(p manager.Process, _ time.Time) string { return strconv.Itoa(p.PPID) }},
		"c":     {"C", psPercent},
		"stime": {"STIME", psStart},
		"tty":   {"TT", tty}, "tname": {"TTY", tty},
		"time": {"TIME", func(p manager.Process, _ time.Time) string { return psTime(p.CPU) }},
		"cmd":  {"CMD", command}, "args": {"COMMAND", command}, "command": {"COMMAND", command},
	}
}

// psFull are the columns of ps -ef, docker's default.
func psFull() []psColumn {
	names := psNames()
	full := []psColumn{names["user"], names["pid"], names["ppid"], names["c"], names["stime"], names["tname"], names["time"], names["cmd"]}
	full[0].title = "UID"
	return full
}

// psColumns reads ps's options: -e, -f and -o alone, since nothing here is ps.
func psColumns(options []string) ([]psColumn, error) {
	var list []string
	for i := 0; i < len(options); i++ {
		letters, ok := strings.CutPrefix(options[i], "-")
		letters, value, hasValue := strings.Cut(letters, "o")
		if !ok || strings.Trim(letters, "ef") != "" || letters == "" && !hasValue {
			return nil, fmt.Errorf("ps option %q is not supported: only -e, -f and -o are", options[i])
		}
		if hasValue && value == "" {
			if i++; i == len(options) {
				return nil, fmt.Errorf("ps option -o needs a list of columns")
			}
			value = options[i]
		}
		if hasValue {
			list = append(list, strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' })...)
		}
	}
	if len(list) == 0 {
		return psFull(), nil
	}
	return psSelect(list)
}

func psSelect(list []string) ([]psColumn, error) {
	names := psNames()
	var columns []psColumn
	for _, name := range list {
		c, ok := names[name]
		if !ok {
			return nil, fmt.Errorf("ps column %q is not supported: there are %s", name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
		columns = append(columns, c)
	}
	return columns, nil
}

func (a *app) printProcesses(columns []psColumn, processes []manager.Process, now time.Time) error {
	w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
	row := func(value func(psColumn) string) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, value(c))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row(func(c psColumn) string { return c.title })
	for _, p := range processes {
		row(func(c psColumn) string { return c.value(p, now) })
	}
	return w.Flush()
}

// userName knows root alone: the names of the host are not those of the guest.
func userName(uid int) string {
	if uid == 0 {
		return "root"
	}
	return strconv.Itoa(uid)
}

// psPercent is the share of one CPU over the life of the process.
func psPercent(p manager.Process, now time.Time) string {
	life := now.Sub(p.Started)
	if life <= 0 {
		return "0"
	}
	return strconv.Itoa(int(min(99, 100*p.CPU.Seconds()/life.Seconds())))
}

// psStart is the time of day, the date once that is another day, or the year.
func psStart(p manager.Process, now time.Time) string {
	started, now := p.Started.Local(), now.Local()
	switch {
	case started.Year() != now.Year():
		return started.Format("2006")
	case started.YearDay() != now.YearDay():
		return started.Format("Jan02")
	}
	return started.Format("15:04")
}

// psTime is [DD-]HH:MM:SS.
func psTime(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}
