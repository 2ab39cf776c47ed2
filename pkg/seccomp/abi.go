package seccomp

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// abi is one way to enter the kernel of an x86-64 machine. Each has its own
// numbers for the system calls, so a filter that knew only one could be walked
// around.
type abi struct {
	arch   specs.Arch
	audit  uint32 // seccomp_data.arch
	bit    uint32 // in every number: how x32 shares x86-64's audit value
	narrow bool   // arguments have 32 bits
	number map[string]int
	// multiplexed are calls that can also be made through another one, whose
	// first argument then says which.
	multiplexed map[string]multiplex
}

type multiplex struct {
	call  string
	index uint64
}

// callNumbers has a line for each system call: its name and its numbers on
// x86-64, x32 and 32-bit x86, "-" for none. It is written from a library's
// tables (TestCallNumbers), which in a program would be built at each start,
// whoever needs them.
//
//go:embed calls.txt
var callNumbers string

func allABIs() []abi {
	abis := []abi{
		{arch: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64},
		{arch: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, bit: x32Bit},
		{arch: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, narrow: true, multiplexed: i386Multiplexed()},
	}
	for i := range abis {
		abis[i].number = map[string]int{}
	}
	for line := range strings.Lines(callNumbers) {
		fields := strings.Fields(line)
		for i, field := range fields[1:] {
			if n, err := strconv.Atoi(field); err == nil {
				abis[i].number[fields[0]] = n
			}
		}
	}
	return abis
}

// i386Multiplexed are the calls of socketcall(2) and ipc(2).
func i386Multiplexed() map[string]multiplex {
	out := map[string]multiplex{}
	for i, name := range []string{
		"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	} {
		out[name] = multiplex{"socketcall", uint64(i + 1)}
	}
	for name, i := range map[string]uint64{
		"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
		"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
	} {
		out[name] = multiplex{"ipc", i}
	}
	return out
}
