//go:build !failpoint

package main

import "github.com/spf13/cobra"

func testVerbs(*app) []*cobra.Command { return nil }
