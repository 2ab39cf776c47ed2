package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// newLogger returns the logger of a command: warnings for people by default,
// everything with debug, JSON lines when the format asks for it.
func newLogger(w io.Writer, format string, debug bool) (*slog.Logger, error) {
	level := slog.LevelWarn
	if debug {
		level = slog.LevelDebug
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
	case "text", "":
		if debug {
			return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
		}
		return slog.New(&plainHandler{w: w}), nil
	default:
		return slog.New(slog.DiscardHandler), fmt.Errorf("invalid --log-format %q: must be text or json", format)
	}
}

// plainHandler prints warnings and errors as one line each, without time stamps.
type plainHandler struct {
	w     io.Writer
	attrs []slog.Attr
}

func (h *plainHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "micropod: %s: %s", strings.ToLower(r.Level.String()), r.Message)
	if r.Level == slog.LevelWarn {
		b.Reset()
		b.WriteString("micropod: warning: " + r.Message)
	}
	sep := " ("
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&b, "%s%s: %v", sep, a.Key, a.Value)
		sep = ", "
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if sep == ", " {
		b.WriteByte(')')
	}
	_, err := fmt.Fprintln(h.w, escape(b.String()))
	return err
}

func (h *plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &plainHandler{w: h.w, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup drops the group's name: the line is for people.
func (h *plainHandler) WithGroup(string) slog.Handler { return h }
