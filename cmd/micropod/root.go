package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const usageTemplate = `Usage:  {{if .Runnable}}{{.UseLine}}{{else}}{{.CommandPath}} COMMAND{{end}}

{{.Short}}{{if .Aliases}}

Aliases:
  {{join .Aliases ", "}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global Options:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

Run '{{.CommandPath}} COMMAND --help' for more information on a command.{{end}}
`

// newRootCommand is the tree of verbs, or what of it a command line needs.
func newRootCommand(a *app, args []string) *cobra.Command {
	root := &cobra.Command{
		Use:                   "micropod [OPTIONS] COMMAND",
		Short:                 "Run OCI images in microVMs",
		Version:               version,
		SilenceErrors:         true,
		SilenceUsage:          true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		Args:                  cobra.ArbitraryArgs,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE:     func(*cobra.Command, []string) error { return a.setUp() },
		RunE:                  runRoot,
	}
	cobra.AddTemplateFunc("join", strings.Join)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Name}} version {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, RunE: func(c *cobra.Command, args []string) error { return runHelp(root, args) }})
	f := root.PersistentFlags()
	f.StringVar(&a.globals.root, "root", os.Getenv("MICROPOD_ROOT"), "Directory of MicroPod's state (default ~/.config/micropod)")
	f.BoolVarP(&a.globals.debug, "debug", "D", false, "Log every phase on stderr")
	f.StringVar(&a.globals.logFormat, "log-format", "text", "Format of the log (text, json)")
	a.globals.templates.register(f)
	f.BoolVar(&a.globals.jailer, "jailer", true, "As root, run Firecracker in a jail")
	f.StringVar(&a.globals.jailIDs, "jail-ids", jailIDs(), "User and group IDs for jails (FIRST-LAST)")
	if c := soleVerb(a, verbOf(args)); c != nil {
		root.AddCommand(c)
		return root
	}
	root.AddCommand(verbs(a)...)
	root.AddCommand(testVerbs(a)...)
	root.AddCommand(
		group("container", "Manage containers",
			newRunCommand(a), newCreateCommand(a), newStartCommand(a), newStopCommand(a), newRestartCommand(a),
			newKillCommand(a), named(newRemoveCommand(a), "rm", "remove"), newWaitCommand(a), newLogsCommand(a), newExecCommand(a), newAttachCommand(a), newTopCommand(a), newStatsCommand(a),
			newPauseCommand(a), newUnpauseCommand(a), newUpdateCommand(a), newRenameCommand(a), newPortCommand(a),
			newCopyCommand(a), newDiffCommand(a), newExportCommand(a), newCommitCommand(a),
			newInspectCommand(a, "container"), newContainerPruneCommand(a), named(newListCommand(a), "ls", "list", "ps")),
		group("image", "Manage images",
			newPullCommand(a), newLoadCommand(a), newSaveCommand(a), newInspectCommand(a, "image"),
			newTagCommand(a), newHistoryCommand(a), newPushCommand(a), newImportCommand(a),
			newImagePruneCommand(a),
			named(newImagesCommand(a), "ls", "list"), named(newRemoveImageCommand(a), "rm", "remove")),
		group("system", "Manage MicroPod", newSystemCheckCommand(a), newSystemDfCommand(a), newEventsCommand(a), newSystemPruneCommand(a), newInfoCommand(a)),
		newNetworkCommand(a),
		group("manifest", "Look at manifests in registries", newManifestInspectCommand(a)),
	)
	return root
}

// soleVerb is one of the verbs on the way to a container, nil for others: to make
// all of them takes longer than what these do before they wait for somebody.
func soleVerb(a *app, name string) *cobra.Command {
	switch name {
	case "run":
		return newRunCommand(a)
	case "create":
		return newCreateCommand(a)
	case "start":
		return newStartCommand(a)
	case "exec":
		return newExecCommand(a)
	case "supervise":
		return newSuperviseCommand(a)
	}
	return nil
}

// verbOf is the verb of a command line, behind flags that stand before it. With a
// flag that it does not know, such as --help, nobody knows without the whole tree.
func verbOf(args []string) string {
	for i := 0; i < len(args); i++ {
		switch name, _, valued := strings.Cut(args[i], "="); {
		case slices.Contains([]string{"--root", "--log-format", "--jail-ids"}, name):
			if !valued {
				i++
			}
		case slices.Contains([]string{"-D", "--debug", "--jailer", "--templates"}, name):
		case strings.HasPrefix(name, "-"):
			return ""
		default:
			return args[i]
		}
	}
	return ""
}

func verbs(a *app) []*cobra.Command {
	return []*cobra.Command{
		newRunCommand(a), newCreateCommand(a), newStartCommand(a), newStopCommand(a), newRestartCommand(a),
		newKillCommand(a), newRemoveCommand(a), newWaitCommand(a), newLogsCommand(a), newExecCommand(a), newAttachCommand(a), newTopCommand(a), newStatsCommand(a),
		newPauseCommand(a), newUnpauseCommand(a), newUpdateCommand(a), newRenameCommand(a), newPortCommand(a), newInspectCommand(a, ""),
		newCopyCommand(a), newDiffCommand(a), newExportCommand(a), newCommitCommand(a),
		newListCommand(a), newPullCommand(a), newImagesCommand(a), newRemoveImageCommand(a), newLoadCommand(a),
		newSaveCommand(a), newTagCommand(a), newHistoryCommand(a), newPushCommand(a),
		newImportCommand(a), newEventsCommand(a), newLoginCommand(a), newLogoutCommand(a), newVersionCommand(a), newInfoCommand(a), newDoctorCommand(a), newCompletionCommand(),
		newSuperviseCommand(a),
	}
}

// group is docker's longer spelling of the same verbs: `container ls`.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: name + " COMMAND", Short: short, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	c.AddCommand(commands...)
	return c
}

// named gives a verb the name that it has inside of a group.
func named(c *cobra.Command, name string, aliases ...string) *cobra.Command {
	_, arguments, _ := strings.Cut(c.Use, " ")
	c.Use, c.Aliases = name+" "+arguments, aliases
	return c
}

func runRoot(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}

func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command: %s %s", c.CommandPath(), name)
	if slices.Contains(unsupportedVerbs(), name) {
		err = fmt.Errorf("%s %s is not supported yet", c.CommandPath(), name)
	}
	return &usageError{command: c.CommandPath(), code: exitFailure, err: err}
}

func runHelp(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || len(rest) > 0 {
		return unknownCommand(root, strings.Join(args, " "))
	}
	return c.Help()
}

// flagError is docker's answer to a wrong flag: one line, the way to the help,
// and exit code 125.
func flagError(c *cobra.Command, err error) error {
	var refused *unsupportedFlagError
	if errors.As(err, &refused) {
		err = refused
	}
	return &usageError{command: c.CommandPath(), code: exitOurs, err: err}
}

// arguments checks their number, with docker's words; most < 0 is no limit.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		var wants string
		switch {
		case most == 0:
			wants = "accepts no arguments"
		case least == most:
			wants = fmt.Sprintf("requires %d %s", least, plural(least))
		case len(args) < least:
			wants = fmt.Sprintf("requires at least %d %s", least, plural(least))
		default:
			wants = fmt.Sprintf("requires at most %d %s", most, plural(most))
		}
		return &usageError{command: c.CommandPath(), code: exitFailure, err: fmt.Errorf("'%s' %s", c.CommandPath(), wants)}
	}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

// newVerb is a command with MicroPod's conventions: an explicit usage line and
// docker's flags that it lacks.
func newVerb(use, short string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run, DisableFlagsInUseLine: true}
}

// usage marks err as a wrong use of c, found after its flags were read.
func usage(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &usageError{command: c.CommandPath(), code: exitOurs, err: err}
}
