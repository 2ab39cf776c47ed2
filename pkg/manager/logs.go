package manager

import (
	"context"
	"errors"
	"io"

	"github.com/micropod/micropod/pkg/logfile"
	"github.com/micropod/micropod/pkg/supervisor"
)

// Logs writes what a container has printed, and with Follow what it prints
// until it ends or ctx does.
func (m *Manager) Logs(ctx context.Context, ref string, o LogOptions) error {
	vm, err := m.resolve(ref)
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
	return logfile.Read(ctx, m.state.Paths(vm.ID).Log(), sel, func(l logfile.Line) error {
		w := o.Out
		if l.Stream == logfile.Stderr {
			w = o.Err
		}
		return writeLine(w, l, o.Timestamps)
	})
}

func writeLine(w io.Writer, l logfile.Line, timestamps bool) error {
	if w == nil {
		return nil
	}
	if timestamps {
		// Nine digits always, as docker prints them: columns stay in line.
		stamp := l.At.Format("2006-01-02T15:04:05.000000000Z07:00 ")
		if _, err := io.WriteString(w, stamp); err != nil {
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
