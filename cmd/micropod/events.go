package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newEventsCommand(a *app) *cobra.Command {
	var filters []string
	var since, until, format string
	c := newVerb("events [OPTIONS]", "Get real time events", arguments(0, 0), nil)
	f := c.Flags()
	f.VarP(newChecked(&filters, "filter", checkFilter), "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", `Format output: "json" or a Go template`)
	f.StringVar(&since, "since", "", "Show all events created since timestamp")
	f.StringVar(&until, "until", "", "Stream events until this timestamp")
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error {
		var o manager.EventOptions
		var err error
		if o.Filters, err = parseFilters(filters, manager.EventFilters()); err != nil {
			return err
		}
		if o.Since, o.Until, err = parseSpan(since, until, time.Now()); err != nil {
			return err
		}
		return a.events(c.Context(), o, format)
	}
	return c
}

func (a *app) events(ctx context.Context, o manager.EventOptions, format string) error {
	if format != "" && format != "json" {
		if _, err := parseTemplate(format); err != nil {
			return err
		}
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	return m.Events(ctx, o, func(e manager.Event) error {
		return writeValue(a.out, format, newEventView(e), escape(eventLine(e))+"\n")
	})
}

// eventView is an event in docker's shape. Its second spelling of the same is
// that of docker's first versions.
type eventView struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`

	Type, Action string
	Actor        actorView
	Scope        string `json:"scope"`
	Time         int64  `json:"time"`
	TimeNano     int64  `json:"timeNano"`
}

type actorView struct {
	ID         string
	Attributes map[string]string
}

func newEventView(e manager.Event) eventView {
	v := eventView{
		Type: string(e.Type), Action: string(e.Action), Actor: actorView{ID: e.ID, Attributes: e.Attributes},
		Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if e.Type != "network" { // which docker's first versions did not have
		v.Status, v.ID, v.From = string(e.Action), e.ID, e.Attributes["image"]
	}
	return v
}

// eventLine is docker's line of an event:
// TIME container start ID (image=busybox, name=web).
func eventLine(e manager.Event) string {
	line := fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.ID)
	var attributes []string
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		attributes = append(attributes, name+"="+e.Attributes[name])
	}
	if len(attributes) > 0 {
		line += " (" + strings.Join(attributes, ", ") + ")"
	}
	return line
}
