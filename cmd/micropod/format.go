package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/mattn/go-runewidth"
)

// templateFuncs are docker's functions of --format templates.
func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json":     func(v any) (string, error) { b, err := marshalLine(v); return string(b), err },
		"split":    strings.Split,
		"join":     joinValues,
		"title":    titleCase,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      padText,
		"truncate": truncateText,
	}
}

// headerFuncs leave the headings of a table alone, but for the padding.
func headerFuncs() template.FuncMap {
	same := func(s string) string { return s }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same,
		"split":    func(s, _ string) string { return s },
		"join":     func(s, _ string) string { return s },
		"truncate": func(s string, _ int) string { return s },
	}
}

func joinValues(v any, sep string) (string, error) {
	list := reflect.ValueOf(v)
	if !list.IsValid() {
		return "", nil
	}
	var out []string
	switch list.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range list.Len() {
			out = append(out, fmt.Sprint(list.Index(i).Interface()))
		}
	case reflect.Map:
		for _, k := range list.MapKeys() {
			out = append(out, fmt.Sprint(list.MapIndex(k).Interface()))
		}
		slices.Sort(out)
	default:
		return "", fmt.Errorf("expected a list, got %T", v)
	}
	return strings.Join(out, sep), nil
}

// titleCase makes the first letter of each word upper case.
func titleCase(s string) string {
	words := strings.SplitAfter(s, " ")
	for i, w := range words {
		if w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

func padText(s string, before, after int) string {
	const most = 1 << 10
	if s == "" {
		return s
	}
	return strings.Repeat(" ", min(max(before, 0), most)) + s + strings.Repeat(" ", min(max(after, 0), most))
}

func truncateText(s string, n int) string {
	if n < 0 || len(s) < n {
		return s
	}
	return s[:n]
}

func parseTemplate(format string) (*template.Template, error) {
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	t, err := template.New("").Funcs(templateFuncs()).Parse(format)
	if err != nil {
		return nil, fmt.Errorf("invalid --format: %w", err)
	}
	return t, nil
}

// marshalLine is v as one line of JSON that a terminal can show.
func marshalLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return escapeJSON(bytes.TrimRight(b.Bytes(), "\n")), nil
}

func marshalIndented(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return escapeJSON(b.Bytes()), nil
}

// rowFormat is --format of a verb that lists rows: "table", "table TEMPLATE",
// "json" or a template per row.
type rowFormat struct {
	// table: each cell must be one line, so that the rows' text is escaped
	// before it is formatted. JSON has its own escapes, a pipe gets the text as it is.
	table, json bool
	template    string
}

func parseRowFormat(format, defaultTable string) rowFormat {
	rest, isTable := strings.CutPrefix(format, "table")
	switch {
	case format == "" || format == "table":
		return rowFormat{table: true, template: defaultTable}
	case format == "json":
		return rowFormat{json: true}
	case isTable:
		return rowFormat{table: true, template: strings.Trim(rest, " ")}
	}
	return rowFormat{template: format}
}

// writeRows prints rows; header holds the headings in the fields of a row.
func writeRows[T any](out io.Writer, f rowFormat, header T, rows []T) error {
	if f.json {
		return writeJSONRows(out, rows)
	}
	t, err := parseTemplate(f.template)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, row := range rows {
		if err := t.Execute(&text, row); err != nil {
			return fmt.Errorf("invalid --format: %w", err)
		}
		text.WriteByte('\n')
	}
	if !f.table {
		return writeText(out, text.String())
	}
	var head bytes.Buffer
	if err := t.Funcs(headerFuncs()).Execute(&head, header); err != nil {
		return fmt.Errorf("invalid --format: %w", err)
	}
	return writeTable(out, head.String()+"\n"+text.String())
}

func writeJSONRows[T any](out io.Writer, rows []T) error {
	for _, row := range rows {
		line, err := marshalLine(row)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// writeTable aligns the cells of text, which tabs separate.
func writeTable(out io.Writer, text string) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 10, 1, 3, ' ', 0)
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := out.Write(b.Bytes())
	return err
}

// ellipsis shortens s to width columns of a terminal.
func ellipsis(s string, width int) string { return runewidth.Truncate(s, width, "…") }

// shortID is the first twelve characters of an id, without its algorithm.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	return id[:min(len(id), 12)]
}

// writeValue prints one value: as a template says, as a line of JSON, or as text
// where no format is given.
func writeValue(out io.Writer, format string, v any, text string) error {
	switch format {
	case "":
		_, err := io.WriteString(out, text)
		return err
	case "json":
		return writeJSONRows(out, []any{v})
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	line, err := execute(t, v)
	if err != nil {
		return err
	}
	return writeText(out, line+"\n")
}

// execute runs a template on v, and where v's type has no such field on v's
// JSON: docker's users write the names of both.
func execute(t *template.Template, v any) (string, error) {
	var b bytes.Buffer
	typed := t.Execute(&b, v)
	if typed == nil {
		return b.String(), nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	var loose any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&loose); err != nil {
		return "", err
	}
	b.Reset()
	if err := t.Option("missingkey=error").Execute(&b, loose); err != nil {
		return "", fmt.Errorf("invalid --format: %w", typed)
	}
	return b.String(), nil
}

// writeText prints what a template made of untrusted values: as it is into a
// pipe, escaped on a terminal.
func writeText(out io.Writer, text string) error {
	if isTerminal(out) {
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			cells := strings.Split(line, "\t")
			for j := range cells {
				cells[j] = escape(cells[j])
			}
			lines[i] = strings.Join(cells, "\t")
		}
		text = strings.Join(lines, "\n")
	}
	_, err := io.WriteString(out, text)
	return err
}
