// Package logdriver takes a container's output to where it is kept: it has
// docker's logging drivers local, json-file, journald and none, with docker's
// options.
//
// It knows no container but what a Spec says of one. A Log belongs to the
// process that watches the container; whoever wants to read it asks Source for
// its files. A log that cannot be written never stops a container.
package logdriver

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/logfile"
)

// Names of the drivers.
const (
	Local    = "local"
	JSONFile = "json-file"
	Journald = "journald"
	None     = "none"
)

// Default is the driver of a container that names none.
const Default = Local

// JournalSocket is where journald listens, systemd-journald.service(8).
const JournalSocket = "/run/systemd/journal/socket"

// Spec is a driver with its options, and the container whose log it keeps.
type Spec struct {
	Driver    string            `json:"driver"` // "" is Default
	Options   map[string]string `json:"options,omitempty"`
	Path      string            `json:"path"` // of the file, where the driver has one
	Container Container         `json:"container"`
	// JournalSocket stands for that of the system; "" is JournalSocket.
	JournalSocket string `json:"journalSocket,omitempty"`
}

// Container is what an entry can say of where it comes from.
type Container struct {
	ID        string            `json:"id"` // complete
	Name      string            `json:"name"`
	ImageName string            `json:"imageName"`
	ImageID   string            `json:"imageId"` // sha256:…
	Args      []string          `json:"args,omitempty"`
	Env       []string          `json:"env,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// ErrUnreadable is said by Source of a driver that keeps nothing to read.
var ErrUnreadable = errors.New("configured logging driver does not support reading")

// sink is where entries go.
type sink interface {
	Write(logfile.Entry) error
	Flush() error
	Close() error
}

// Log takes the output of a container. Safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	split   logfile.Splitter
	sink    sink
	written func(error)
	queue   *queue // of the mode non-blocking, else nil
}

// Open makes the Log of a container that starts. written is called, one call
// after the other, whenever output has been written or could not be.
func Open(s Spec, written func(error)) (*Log, error) {
	o, err := parse(s.Driver, s.Options)
	if err != nil {
		return nil, err
	}
	l := &Log{written: written}
	if l.sink, err = open(s, o); err != nil {
		return nil, err
	}
	if o.nonBlocking {
		l.queue = newQueue(o.bufferSize, l.sink, written)
	}
	return l, nil
}

func open(s Spec, o options) (sink, error) {
	switch o.driver {
	case None:
		return nowhere{}, nil
	case Journald:
		j, err := openJournal(s)
		if err != nil || o.cacheDisabled {
			return j, err
		}
		cache, err := logfile.Create(o.file(s.Path, nil))
		if err != nil {
			j.Close()
			return nil, err
		}
		return both{j, cache}, nil
	}
	attrs, err := s.attributes(nil)
	if err != nil {
		return nil, err
	}
	return logfile.Create(o.file(s.Path, attrs))
}

// Write records bytes that a stream delivered at a time. With the mode
// non-blocking it never waits, and drops what finds no place in the buffer.
func (l *Log) Write(s logfile.Stream, at time.Time, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue != nil {
		l.split.Split(s, at, b, l.queue.add)
		return
	}
	var errs []error
	note := func(err error) {
		if err != nil && len(errs) == 0 { // the others say the same
			errs = append(errs, err)
		}
	}
	l.split.Split(s, at, b, func(e logfile.Entry) { note(l.sink.Write(e)) })
	note(l.sink.Flush())
	l.written(errors.Join(errs...))
}

// Close writes what waits for the end of its line, and ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue != nil {
		l.queue.close()
	}
	var errs []error
	l.split.Flush(func(e logfile.Entry) { errs = append(errs, l.sink.Write(e)) })
	return errors.Join(append(errs, l.sink.Close())...)
}

// nowhere is the sink of the driver none.
type nowhere struct{}

func (nowhere) Write(logfile.Entry) error { return nil }
func (nowhere) Flush() error              { return nil }
func (nowhere) Close() error              { return nil }

// both keeps a copy of what goes to a sink that cannot be read.
type both struct{ first, copy sink }

func (b both) Write(e logfile.Entry) error { return errors.Join(b.first.Write(e), b.copy.Write(e)) }
func (b both) Flush() error                { return errors.Join(b.first.Flush(), b.copy.Flush()) }
func (b both) Close() error                { return errors.Join(b.first.Close(), b.copy.Close()) }

// Source says where the log of a container can be read. The error is
// ErrUnreadable if nowhere.
func Source(s Spec) (logfile.Config, error) {
	o, err := parse(s.Driver, s.Options)
	if err != nil {
		return logfile.Config{}, err
	}
	if o.driver == None || o.driver == Journald && o.cacheDisabled {
		return logfile.Config{}, ErrUnreadable
	}
	return o.file(s.Path, nil), nil
}

// file is the log on disk of a driver that has one, or of the copy of journald's.
func (o options) file(path string, attrs map[string]string) logfile.Config {
	c := logfile.Config{Path: path, Format: logfile.CRI{}, MaxSize: o.maxSize, MaxFiles: o.maxFiles, Compress: o.compress}
	if o.driver == JSONFile {
		c.Format = logfile.JSON{Attrs: attrs}
	}
	return c
}

// Attributes are what the entries of a container say of it by its options
// labels, env and tag.
func Attributes(s Spec) (map[string]string, error) { return s.attributes(nil) }

// Check refuses a driver or options that a start would fail for, in docker's words.
func Check(s Spec) error {
	if _, err := parse(s.Driver, s.Options); err != nil {
		return err
	}
	if s.Driver == None {
		return nil
	}
	attrs, err := s.attributes(nil)
	if err != nil {
		return err
	}
	size := 0
	for k, v := range attrs {
		size += len(k) + 6*len(v) + 8
	}
	if size > logfile.MaxAttrs {
		return fmt.Errorf("labels, env and tag of the log are too long: over %d bytes", logfile.MaxAttrs)
	}
	return nil
}
