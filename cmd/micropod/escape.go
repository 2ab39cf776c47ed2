package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text from images, guests and records may hold terminal control sequences, or
// marks that reorder what is read. It is escaped before a terminal sees it.

// unsafeRune reports whether r can change a terminal instead of being shown.
func unsafeRune(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// escape returns s on one line with every unsafe rune and invalid byte as \x1b or \u202e.
func escape(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < utf8.RuneSelf && unsafeRune(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unsafeRune(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// escapeLines is escape for a text of several lines, such as an error that
// quotes a console: the lines after the first are indented, so that none of
// them can pass for a message of MicroPod.
func escapeLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\r\n"), "\n")
	for i, line := range lines {
		line = strings.ReplaceAll(strings.TrimSuffix(line, "\r"), "\t", "    ")
		lines[i] = escape(line)
	}
	return strings.Join(lines, "\n  ")
}

// escapeJSON writes the unsafe runes of a JSON text as \u escapes. Such runes
// occur only inside of strings, where the escape means the same.
func escapeJSON(text []byte) []byte {
	if bytes.IndexFunc(text, unsafeInJSON) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		if unsafeInJSON(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.Bytes()
}

// unsafeInJSON leaves the white space of the layout alone.
func unsafeInJSON(r rune) bool {
	return unsafeRune(r) && r != '\n' && r != '\t' && r != '\r'
}
