package manager

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/logfile"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// newLogSpec is the logging driver of a container, without its file. Pure.
func newLogSpec(c *state.Config) logdriver.Spec {
	return logdriver.Spec{
		Driver: c.HostConfig.LogConfig.Type, Options: c.HostConfig.LogConfig.Config,
		Container: logdriver.Container{
			ID: c.ID, Name: c.Name, ImageName: c.Image, ImageID: c.ImageID, Args: c.Args, Env: c.Env, Labels: c.Labels,
		},
	}
}

// logSpec is the logging driver of a container under its present name.
func (m *Manager) logSpec(c *state.Config) logdriver.Spec {
	s := newLogSpec(c)
	paths := m.state.Paths(c.ID)
	s.Path, s.JournalSocket = paths.Log(), m.o.JournalSocket
	if s.Driver == logdriver.JSONFile {
		s.Path = paths.JSONLog()
	}
	if vm, err := m.state.Resolve(c.ID); err == nil {
		s.Container.Name = vm.Name
	}
	return s
}

// Logs writes what a container has printed, and with Follow what it prints
// until it ends or ctx does.
func (m *Manager) Logs(ctx context.Context, ref string, o LogOptions) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return err
	}
	spec := m.logSpec(c)
	log, err := logdriver.Source(spec)
	if err != nil {
		return err
	}
	details, err := logDetails(spec, o)
	if err != nil {
		return err
	}
	sel := logfile.Options{Tail: o.Tail, Since: o.Since, Until: o.Until}
	if o.Follow {
		c, err := m.dial(ctx, vm, supervisor.Command{Op: supervisor.OpWatch})
		switch {
		case err == nil:
			defer c.Close()
			sel.Grown = growth(ctx, c)
		case !errors.Is(err, ErrNotRunning):
			return err
		}
	}
	return logfile.Read(ctx, log, sel, func(l logfile.Line) error {
		w := o.Out
		if l.Stream == logfile.Stderr {
			w = o.Err
		}
		return writeLine(w, l, o.Timestamps, details)
	})
}

// logDetails is what stands before each line with Details, in docker's form.
func logDetails(s logdriver.Spec, o LogOptions) (string, error) {
	if !o.Details {
		return "", nil
	}
	attrs, err := logdriver.Attributes(s)
	if err != nil {
		return "", err
	}
	var words []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		words = append(words, url.QueryEscape(k)+"="+url.QueryEscape(attrs[k]))
	}
	return strings.Join(words, ",") + " ", nil
}

func writeLine(w io.Writer, l logfile.Line, timestamps bool, details string) error {
	if w == nil {
		return nil
	}
	if timestamps {
		// Nine digits always, as docker prints them: columns stay in line.
		details = l.At.UTC().Format("2006-01-02T15:04:05.000000000Z07:00 ") + details
	}
	if details != "" {
		if _, err := io.WriteString(w, details); err != nil {
			return err
		}
	}
	_, err := w.Write(l.Text)
	return err
}

// growth turns a supervisor's notices into values of a channel, which is
// closed at the end of the log.
func growth(ctx context.Context, c *supervisor.Client) <-chan struct{} {
	grown := make(chan struct{}, 1)
	go func() {
		defer close(grown)
		defer context.AfterFunc(ctx, func() { c.Close() })()
		for {
			if _, _, err := c.Read(); err != nil {
				return
			}
			select {
			case grown <- struct{}{}:
			default: // the last notice is not taken yet: it covers this one
			}
		}
	}()
	return grown
}
