package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
)

// parseRestart reads NAME[:COUNT] of --restart. Which names there are, the
// manager knows.
func parseRestart(s string) (p manager.RestartPolicy, err error) {
	name, count, found := strings.Cut(s, ":")
	if found && name == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	p.Name = name
	if count != "" {
		if p.MaximumRetryCount, err = strconv.Atoi(count); err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
	}
	return p, nil
}
