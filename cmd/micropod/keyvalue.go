package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// keyValue is one line of an env or label file. Without an equals sign it is
// only a name.
type keyValue struct {
	key, value string
	hasValue   bool
}

// maxKeyValueLine bounds one line of an env or label file. The kernel takes no
// longer string in an environment either (MAX_ARG_STRLEN).
const maxKeyValueLine = 128 << 10

func readKeyValues(file string) ([]keyValue, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	var out []keyValue
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxKeyValueLine)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		kv, ok, err := parseKeyValue(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if ok {
			out = append(out, kv)
		}
	}
	return out, lines.Err()
}

// parseKeyValue reads a line as docker does: blanks before the name go, all that
// follows the equals sign is the value, quotes and comment signs included. ok is
// false for an empty line and a comment.
func parseKeyValue(line string) (kv keyValue, ok bool, err error) {
	if !utf8.ValidString(line) {
		return kv, false, errors.New("not valid UTF-8")
	}
	if strings.ContainsRune(line, 0) {
		return kv, false, errors.New("holds a NUL byte")
	}
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	if line == "" || line[0] == '#' {
		return kv, false, nil
	}
	kv.key, kv.value, kv.hasValue = strings.Cut(line, "=")
	if kv.key == "" {
		return kv, false, fmt.Errorf("no variable name on line '%s'", line)
	}
	if strings.ContainsAny(kv.key, " \t") {
		return kv, false, fmt.Errorf("variable '%s' contains whitespaces", kv.key)
	}
	return kv, true, nil
}

type lookupFunc func(string) (string, bool)

// envFromFile is a line's entry; a name without a value takes the host's, and is
// left out where the host has none.
func envFromFile(kv keyValue, lookup lookupFunc) (string, bool) {
	if !kv.hasValue {
		value, found := lookup(kv.key)
		return kv.key + "=" + value, found
	}
	return kv.key + "=" + kv.value, true
}

// envFromFlag is the entry of -e; a name that the host does not have stays a
// bare name, which removes the image's variable.
func envFromFlag(arg string, lookup lookupFunc) string {
	if strings.Contains(arg, "=") {
		return arg
	}
	if value, found := lookup(arg); found {
		return arg + "=" + value
	}
	return arg
}
