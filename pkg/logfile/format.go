package logfile

import (
	"bytes"
	"encoding/json"
	"time"
)

// Format is how an entry looks in a file: one line each.
type Format interface {
	// appendEntry appends the line of e to b.
	appendEntry(b []byte, e Entry) []byte
	// parse reads a line, which has its newline.
	parse(b []byte) (Line, bool)
	// maxEntry bounds a line, in bytes.
	maxEntry() int
}

// CRI is the format of the Kubernetes CRI (kubelet's logging format), "TIME
// STREAM TAG TEXT\n": TIME is RFC 3339 with nanoseconds, TAG is F for a line and
// for its last piece, P for a piece that others follow. TEXT is kept byte for
// byte, whatever its encoding.
type CRI struct{}

func (CRI) maxEntry() int { return MaxText + 128 }

func (CRI) appendEntry(b []byte, e Entry) []byte {
	tag := " P "
	if e.Ends() {
		tag = " F "
	}
	b = e.At.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, e.Stream...)
	b = append(b, tag...)
	b = append(b, e.Text...)
	return append(b, '\n')
}

func (CRI) parse(b []byte) (Line, bool) {
	at, rest, ok1 := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(tag) != 1 {
		return Line{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	l := Line{At: t, Stream: Stream(stream), Text: text}
	switch tag[0] {
	case 'F':
	case 'P':
		l.Text = text[:len(text)-1]
	default:
		return Line{}, false
	}
	return l, err == nil && l.sound()
}

// JSON is the format of docker's json-file driver: an object a line, whose text
// is UTF-8 and ends with a newline where the container's line does.
type JSON struct {
	// Attrs are put into each object; nil for none.
	Attrs map[string]string
}

// MaxAttrs bounds the attributes of JSON, in bytes of their object.
const MaxAttrs = 256 << 10

type jsonEntry struct {
	Log    string            `json:"log,omitempty"`
	Stream Stream            `json:"stream,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
	Time   time.Time         `json:"time"`
}

// A byte may take six in JSON.
func (JSON) maxEntry() int { return 6*MaxText + MaxAttrs + 256 }

func (f JSON) appendEntry(b []byte, e Entry) []byte {
	text := string(e.Text)
	if e.Ends() {
		text += "\n"
	}
	line, err := json.Marshal(jsonEntry{text, e.Stream, f.Attrs, e.At.UTC()})
	if err != nil { // a year that RFC 3339 has not
		return b
	}
	return append(append(b, line...), '\n')
}

func (JSON) parse(b []byte) (Line, bool) {
	var e jsonEntry
	if err := json.Unmarshal(b, &e); err != nil {
		return Line{}, false
	}
	l := Line{At: e.Time, Stream: e.Stream, Text: []byte(e.Log)}
	return l, l.sound()
}
