package firecracker

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxErrorText bounds the text kept of an error body, in bytes.
const maxErrorText = 4 << 10

// Error is the API's refusal of a request.
type Error struct {
	// Request is method and path: "PUT /drives/vda".
	Request string
	// Status is the HTTP status code, 400 for nearly everything.
	Status int
	// Message is Firecracker's own text, one line, bounded.
	Message string
}

// Error names the request, then Firecracker's text.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s: status %d", e.Request, e.Status)
	}
	return e.Request + ": " + e.Message
}

// faultMessage finds the text in an error body. API errors are JSON with
// fault_message; errors of the HTTP layer have the key error and a raw newline
// inside the string, which is no JSON. What is neither is kept as it is.
func faultMessage(body []byte) string {
	for _, text := range [][]byte{body, escapeControls(body)} {
		var e struct {
			Fault string `json:"fault_message"`
			Error string `json:"error"`
		}
		if json.Unmarshal(text, &e) != nil {
			continue
		}
		if e.Fault != "" {
			return oneLine(e.Fault, maxErrorText)
		}
		if e.Error != "" {
			return oneLine(e.Error, maxErrorText)
		}
	}
	return oneLine(string(body), maxErrorText)
}

// escapeControls replaces control characters by spaces, so that JSON strings
// with raw newlines can be read.
func escapeControls(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		if c < ' ' {
			c = ' '
		}
		out[i] = c
	}
	return out
}

// oneLine makes text of another program fit for a message: valid UTF-8, no
// control characters, white space folded, at most max bytes.
func oneLine(s string, max int) string {
	if len(s) > 4*max { // no need to fold megabytes
		s = s[:4*max]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= max {
		return s
	}
	s = s[:max]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
