// Package events is the journal of what happens in a root: containers that
// start and end, images that come and go, in docker's words.
//
// There is no daemon that could tell: every process appends what it does to one
// file, one JSON object a line, and whoever wants to know reads along. The file
// is bounded: at its limit it becomes the predecessor, and the one before that
// is dropped. An event is news and no record: losing one must harm nothing, so
// that no caller fails because of it.
//
// Lines are written under a lock and get their time there: their order is the
// order of the times. What a crash or a full disk tears is skipped by readers.
package events

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Type is the kind of thing that an event is about.
type Type string

// Types.
const (
	TypeContainer Type = "container"
	TypeImage     Type = "image"
	TypeNetwork   Type = "network"
)

// Action is what happened, as docker calls it. Those of exec and of health are
// followed by ": " and more; see Event.Is.
type Action string

// Actions of containers.
const (
	ActionCreate       Action = "create"
	ActionStart        Action = "start"
	ActionDie          Action = "die" // exitCode, execDuration in seconds
	ActionStop         Action = "stop"
	ActionKill         Action = "kill" // signal, a number
	ActionRestart      Action = "restart"
	ActionPause        Action = "pause"
	ActionUnpause      Action = "unpause"
	ActionRename       Action = "rename" // oldName, with docker's leading slash
	ActionAttach       Action = "attach"
	ActionDetach       Action = "detach"
	ActionExecCreate   Action = "exec_create" // ": " and the command; execID
	ActionExecStart    Action = "exec_start"  // ": " and the command; execID
	ActionExecDie      Action = "exec_die"    // execID, exitCode
	ActionExecDetach   Action = "exec_detach" // execID
	ActionDestroy      Action = "destroy"
	ActionOOM          Action = "oom"
	ActionHealthStatus Action = "health_status" // ": " and the status
	ActionResize       Action = "resize"        // height, width
	ActionTop          Action = "top"
	ActionUpdate       Action = "update"
	ActionExport       Action = "export"
	ActionCommit       Action = "commit"       // comment, imageID, imageRef
	ActionArchivePath  Action = "archive-path" // a copy out of the container
	ActionExtractToDir Action = "extract-to-dir"
)

// Actions of networks, beside ActionCreate, ActionDestroy and ActionPrune. They have
// type, the driver; those below also container, an id.
const (
	ActionConnect    Action = "connect"
	ActionDisconnect Action = "disconnect"
)

// Actions of images. ActionPrune is one of containers too, and has reclaimed, in
// bytes.
const (
	ActionPull   Action = "pull"
	ActionPush   Action = "push"
	ActionTag    Action = "tag"
	ActionUntag  Action = "untag"
	ActionDelete Action = "delete"
	ActionLoad   Action = "load"
	ActionSave   Action = "save"
	ActionImport Action = "import"
	ActionPrune  Action = "prune"
)

// Event is one line of the journal.
type Event struct {
	Time   time.Time `json:"time"` // set by Write
	Type   Type      `json:"type"`
	Action Action    `json:"action"`
	ID     string    `json:"id"` // of the container or image; "" for prune
	// Attributes are what the action has to say, name and image of a container,
	// and its labels; the name of a network.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Subject is a container, an image or a network that something happens to.
type Subject struct {
	ID, Name string
	// Image of a container, as its user wrote it.
	Image  string
	Labels map[string]string
}

// Container is an event of a container. attributes are pairs of name and value,
// and count more than a label of the same name.
func Container(a Action, s Subject, attributes ...string) Event {
	if s.Image != "" {
		attributes = append(attributes, "image", s.Image)
	}
	return newEvent(TypeContainer, a, s, attributes)
}

// Image is an event of an image.
func Image(a Action, s Subject, attributes ...string) Event {
	return newEvent(TypeImage, a, s, attributes)
}

// Network is an event of a network.
func Network(a Action, s Subject, attributes ...string) Event {
	return newEvent(TypeNetwork, a, s, attributes)
}

func newEvent(t Type, a Action, s Subject, attributes []string) Event {
	if s.Name != "" {
		attributes = append(attributes, "name", s.Name)
	}
	e := Event{Type: t, Action: a, ID: s.ID, Attributes: maps.Clone(s.Labels)}
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	for pair := range slices.Chunk(attributes, 2) {
		e.Attributes[pair[0]] = pair[1]
	}
	return e
}

// Die is the end of a container's process that ran for a time.
func Die(s Subject, exitCode int, ran time.Duration) Event {
	return Container(ActionDie, s, "exitCode", strconv.Itoa(exitCode),
		"execDuration", strconv.Itoa(int(max(ran, 0).Seconds())))
}

// Kill is a signal that a container was sent.
func Kill(s Subject, signal int) Event {
	return Container(ActionKill, s, "signal", strconv.Itoa(signal))
}

// Exec is the action of a process of exec with a command.
func Exec(a Action, command []string) Action {
	return a + ": " + Action(strings.Join(command, " "))
}

// Is reports whether the event's action is a, whatever follows it.
func (e Event) Is(a Action) bool {
	return e.Action == a || strings.HasPrefix(string(e.Action), string(a)+": ")
}

// Names in a root.
const (
	dirEvents   = "events"
	fileJournal = "events.jsonl"
)

// rotated names the predecessor of the journal.
func rotated(path string) string { return path + ".1" }

// Journal is the journal of one root. Safe for concurrent use by many processes.
type Journal struct {
	path  string
	limit int64
}

// Open makes the journal's directory in a root when it is missing.
func Open(root string) (*Journal, error) {
	dir := filepath.Join(root, dirEvents)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create directory of events: %w", err)
	}
	return &Journal{path: filepath.Join(dir, fileJournal), limit: defaultLimit}, nil
}
