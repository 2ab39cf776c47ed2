package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestImageScripts runs the scripts that need a registry and no VM, against
// Debian's docker-registry with the test images in it (MICROPOD_TEST_IMAGES).
func TestImageScripts(t *testing.T) {
	images := os.Getenv("MICROPOD_TEST_IMAGES")
	if images == "" {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_IMAGES must name an OCI layout")
		}
		t.Skip("MICROPOD_TEST_IMAGES does not name an OCI layout (make test does)")
	}
	registry := startRegistry(t, images)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/image",
		Cmds:               scriptCommands(),
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MICROPOD_ROOT", filepath.Join(env.WorkDir, "root"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
			env.Setenv("REGISTRY", registry)
			env.Setenv("BUSYBOX", registry+"/busybox:latest")
			env.Setenv("ESC", "\x1b")
			return nil
		},
	})
}
