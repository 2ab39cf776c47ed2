package manager

import (
	"math/rand/v2"

	"github.com/micropod/micropod/pkg/state"
)

// CheckName reports what is wrong with a name that a user chose.
func CheckName(name string) error { return state.CheckName(name) }

// newName makes up a name for a container that was given none, in docker's
// style. It may be taken already: the caller tries another one then.
func newName() string {
	first := [...]string{
		"agile", "amber", "ample", "arctic", "azure", "balmy", "bold", "brave", "brisk", "calm",
		"candid", "clever", "cosmic", "crisp", "dapper", "deft", "eager", "early", "fair", "fleet",
		"fond", "frosty", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble", "jolly",
		"keen", "kind", "lively", "loyal", "lucid", "lunar", "mellow", "merry", "mighty", "neat",
		"nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid",
		"ready", "rustic", "serene", "sharp", "silent", "smart", "snug", "solar", "steady", "sturdy",
		"sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "zesty",
	}
	second := [...]string{
		"acorn", "aspen", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "cliff",
		"comet", "coral", "crane", "delta", "dune", "ember", "falcon", "fern", "finch", "fjord",
		"forge", "fox", "garnet", "glacier", "grove", "gull", "harbor", "hazel", "heron", "ibex",
		"iris", "island", "jasper", "kestrel", "lagoon", "lark", "lynx", "maple", "marten", "meadow",
		"moss", "oak", "orbit", "otter", "owl", "pebble", "pine", "plover", "quartz", "raven",
		"reef", "ridge", "river", "robin", "sable", "spruce", "stone", "summit", "swan", "thicket",
		"tide", "valley", "walnut", "willow", "wren",
	}
	return first[rand.IntN(len(first))] + "_" + second[rand.IntN(len(second))]
}
