package image

import (
	"errors"
	"fmt"
	"strings"
)

// The words of a Dockerfile's instruction: blanks part them, quotes and
// backslashes keep blanks, and variables stand for what ENV has set.

// cutWord takes the first word off, without regard to quotes.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// splitWords parts words at blanks outside of quotes, and leaves the quotes in.
func splitWords(s string) ([]string, error) {
	var words []string
	var quote byte
	start := -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		blank := quote == 0 && (c == ' ' || c == '\t')
		switch {
		case blank && start >= 0:
			words, start = append(words, s[start:i]), -1
		case blank:
			continue
		case start < 0:
			start = i
		}
		switch {
		case c == '\\' && quote != '\'':
			i++ // whatever follows is text
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c has no end", quote)
	}
	if start >= 0 {
		words = append(words, s[start:])
	}
	if len(words) == 0 {
		return nil, errors.New("no words")
	}
	return words, nil
}

// words are the words of s in their meaning.
func (a *changer) words(s string) ([]string, error) {
	words, err := splitWords(s)
	if err != nil {
		return nil, err
	}
	for i, w := range words {
		if words[i], err = a.expand(w); err != nil {
			return nil, err
		}
	}
	return words, nil
}

// one is the only word of s.
func (a *changer) one(s string) (string, error) {
	words, err := a.words(s)
	if err != nil {
		return "", err
	}
	if len(words) != 1 || words[0] == "" {
		return "", fmt.Errorf("%q is not one word", clip(s))
	}
	return words[0], nil
}

// expand takes the quotes and backslashes off a word and puts values in for
// variables.
func (a *changer) expand(s string) (string, error) {
	x := expander{s: s, lookup: a.lookup}
	err := x.run(false)
	if x.out.Len() > maxDocument {
		err = fmt.Errorf("longer than %d bytes", maxDocument)
	}
	return x.out.String(), err
}

func (a *changer) lookup(name string) (string, bool) {
	for _, e := range a.c.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

type expander struct {
	s      string
	at     int
	depth  int
	out    strings.Builder
	lookup func(string) (string, bool)
}

var errBrace = errors.New("a ${ has no end")

// run expands to the end, or with inBrace to the closing brace, which it takes.
func (x *expander) run(inBrace bool) error {
	quote := byte(0)
	for ; x.at < len(x.s); x.at++ {
		c := x.s[x.at]
		switch {
		case inBrace && quote == 0 && c == '}':
			return nil
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			x.out.WriteByte(c)
		case c == '\\' && x.at+1 < len(x.s):
			x.at++
			if next := x.s[x.at]; quote == '"' && !strings.ContainsRune(`"\$`, rune(next)) {
				x.out.WriteByte('\\')
			}
			x.out.WriteByte(x.s[x.at])
		case c == '$':
			if err := x.variable(); err != nil {
				return err
			}
		default:
			x.out.WriteByte(c)
		}
	}
	if quote != 0 {
		return fmt.Errorf("a quote %c has no end", quote)
	}
	if inBrace {
		return errBrace
	}
	return nil
}

// variable expands $NAME, ${NAME}, ${NAME:-WORD} and ${NAME:+WORD}; it ends on
// the last character of it.
func (x *expander) variable() error {
	rest := x.s[x.at+1:]
	if !strings.HasPrefix(rest, "{") {
		name := rest[:nameLength(rest)]
		if name == "" {
			x.out.WriteByte('$')
			return nil
		}
		value, _ := x.lookup(name)
		x.out.WriteString(value)
		x.at += len(name)
		return nil
	}
	name := rest[1 : 1+nameLength(rest[1:])]
	rest = rest[1+len(name):]
	x.at += 2 + len(name) // on what follows the name
	value, set := x.lookup(name)
	switch {
	case name == "":
		return errors.New("a ${ has no name")
	case strings.HasPrefix(rest, "}"):
		x.out.WriteString(value)
		return nil
	case strings.HasPrefix(rest, ":-"), strings.HasPrefix(rest, ":+"):
		return x.alternative(value, set && value != "", rest[1] == '+')
	case rest == "":
		return errBrace
	}
	return fmt.Errorf("${%s%c is not supported", name, rest[0])
}

// alternative is the word after :- (for a value that is empty) or :+ (for one
// that is not).
func (x *expander) alternative(value string, full, plus bool) error {
	const most = 16
	if x.depth++; x.depth > most {
		return errors.New("variables are nested too deep")
	}
	defer func() { x.depth-- }()
	x.at += 2
	word := expander{s: x.s, at: x.at, depth: x.depth, lookup: x.lookup}
	if err := word.run(true); err != nil {
		return err
	}
	x.at = word.at
	switch {
	case full == plus:
		x.out.WriteString(word.out.String())
	case full:
		x.out.WriteString(value)
	}
	return nil
}

func nameLength(s string) int {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}
