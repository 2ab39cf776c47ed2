package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how the layers of an image arrive or leave: a bar each on a terminal, a
// line per step elsewhere, nothing when quiet. It is safe for concurrent use.
type progress struct {
	mu     sync.Mutex
	out    io.Writer
	bars   *mpb.Progress // nil: lines
	quiet  bool
	layers map[string]*layerProgress
	done   bool
	pulled bool
}

type layerProgress struct {
	event string
	bar   *mpb.Bar
	// state is read by the bar's drawing, in another goroutine.
	mu             sync.Mutex
	words          string
	current, total int64
	last           bool
}

func newProgress(out *os.File, quiet bool) *progress {
	p := &progress{out: out, quiet: quiet, layers: map[string]*layerProgress{}}
	if !quiet && isTerminal(out) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
	}
	return p
}

// layerWords are docker's words for the steps of a layer.
func layerWords(event string) string {
	switch event {
	case "pulling":
		return "Pulling fs layer"
	case "exists":
		return "Already exists"
	case "downloading":
		return "Downloading"
	case "extracting":
		return "Extracting"
	case "done":
		return "Pull complete"
	case "preparing":
		return "Preparing"
	case "present":
		return "Layer already exists"
	case "pushing":
		return "Pushing"
	case "pushed":
		return "Pushed"
	}
	if from, ok := strings.CutPrefix(event, "mounted from "); ok {
		return "Mounted from " + from
	}
	return event
}

// isLast reports whether no other event follows.
func isLast(event string) bool {
	switch event {
	case "exists", "done", "present", "pushed":
		return true
	}
	return strings.HasPrefix(event, "mounted from ")
}

// Layer takes one step of one layer.
func (p *progress) Layer(id, event string, current, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.pulled = p.pulled || event == "done"
	if p.quiet {
		return
	}
	id = escape(shortID(id))
	l := p.layers[id]
	if l == nil {
		l = &layerProgress{}
		p.layers[id] = l
		if p.bars != nil {
			l.bar = p.addBar(id, l)
		}
	}
	changed := l.event != event
	l.event = event
	if p.bars == nil {
		// A line for each byte count would say nothing in a log.
		if changed {
			fmt.Fprintf(p.out, "%s: %s\n", id, escape(layerWords(event)))
		}
		return
	}
	l.update(escape(layerWords(event)), event, current, total)
}

func (p *progress) addBar(id string, l *layerProgress) *mpb.Bar {
	return p.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(id+": "), decor.Any(func(decor.Statistics) string { return l.text() }, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return l.counters() })),
		mpb.BarFillerClearOnComplete(),
	)
}

func (l *layerProgress) update(words, event string, current, total int64) {
	l.mu.Lock()
	l.words, l.current, l.total, l.last = words, current, total, isLast(event)
	l.mu.Unlock()
	if isLast(event) {
		l.bar.SetTotal(max(total, 1), true)
		return
	}
	// One more than there is, so that the bar ends by "done" and not by a count.
	l.bar.SetTotal(max(total, current)+1, false)
	l.bar.SetCurrent(current)
}

func (l *layerProgress) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words
}

func (l *layerProgress) counters() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total <= 0 || l.last {
		return ""
	}
	return " " + units.HumanSizeWithPrecision(float64(l.current), 4) + "/" + units.HumanSizeWithPrecision(float64(l.total), 4)
}

// finish draws the last state and gives the terminal back. Later steps are dropped.
func (p *progress) finish() {
	p.mu.Lock()
	p.done = true
	for _, l := range p.layers {
		if l.bar != nil && !isLast(l.event) {
			l.bar.Abort(false)
		}
	}
	p.mu.Unlock()
	if p.bars != nil {
		p.bars.Wait()
	}
}

// fetched reports whether a layer had to be brought here.
func (p *progress) fetched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pulled
}
