// Command probe is the program in the images of package fidelity: it says what
// a process in a container sees.
//
//	probe show [ARG...]   print facts about the process and its surroundings
//	probe walk PATH...    print facts about the files below
//	probe calls           print the answers to system calls
//	probe cat             print what comes on stdin, quoted
//	probe wait [CODE]     say ready, then each signal that comes; end on SIGTERM or
//	                      SIGUSR2, with CODE
//	probe exit CODE       end
//
// Facts are a JSON object of strings, their names as in mount:/proc.flags. A
// fact that cannot be had says so in its value: the probe never fails.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// facts are what is found out, by name.
type facts map[string]string

// set takes what read returns, or its error.
func (f facts) set(name string, read func() (string, error)) {
	v, err := read()
	if err != nil {
		v = "error: " + reason(err)
	}
	f[name] = v
}

func (f facts) print() {
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(f); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

func main() {
	verb, args := "show", os.Args[1:]
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "walk":
		walk(args).print()
	case "calls":
		calls().print()
	case "cat":
		b, err := io.ReadAll(os.Stdin)
		fmt.Printf("%q %v\n", b, err)
	case "wait":
		wait(number(args))
	case "exit":
		os.Exit(number(args))
	default:
		show().print()
	}
}

// number is the first argument, 0 without one.
func number(args []string) int {
	if len(args) == 0 {
		return 0
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
	return n
}

func wait(code int) {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.Signal(37))
	fmt.Println("ready")
	for s := range c {
		fmt.Println("signal", int(s.(syscall.Signal)))
		if s == syscall.SIGUSR2 || s == syscall.SIGTERM {
			os.Exit(code)
		}
	}
}
