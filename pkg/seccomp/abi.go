package seccomp

import (
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
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

func allABIs() []abi {
	x86 := func(a specs.Arch, i *arch.Info) abi {
		return abi{arch: a, audit: uint32(i.ID), bit: uint32(i.SeccompMask), number: i.SyscallNames}
	}
	i386 := x86(specs.ArchX86, arch.I386)
	i386.narrow, i386.multiplexed = true, i386Multiplexed()
	x32 := x86(specs.ArchX32, arch.X32)
	x32.number = x32Numbers()
	return []abi{x86(specs.ArchX86_64, arch.X86_64), x32, i386}
}

// x32Numbers is the library's table without the numbers that are x86-64's only:
// a call that has one of its own from 512 on must not be made by the other.
func x32Numbers() map[string]int {
	out := map[string]int{}
	for n, name := range arch.X32.SyscallNumbers {
		out[name] = max(out[name], n)
	}
	return out
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
