"""A seccomp filter: system calls that user code has no use for fail, whoever it runs as.

The filter is a program of the classic BPF that is assembled here; see seccomp(2) and ``linux/seccomp.h``.
It complements Landlock, which leaves UDP, sockets with a path, modes and owners of files, and more, open.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

LOAD, AND, JUMP_EQUAL, JUMP_GREATER, JUMP_SET, RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
"""Operations of BPF: load a word of the call, mask it, compare it, return."""
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16

LAST_NUMBER = 462
"""The last system call that was reviewed for this filter (mseal); newer ones do not exist in it."""
X32_BIT = 0x40000000
CLONE_THREAD = 0x00010000
CLONE_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME."""


class Architecture(NamedTuple):
    """A processor architecture: its number for audits, and its column in `NUMBERS`."""

    audit: int
    column: int


ARCHITECTURES = {"x86_64": Architecture(0xC000003E, 0), "aarch64": Architecture(0xC00000B7, 1)}

# Name: number on x86_64, on aarch64 (None: it does not exist there).
SOCKET = (41, 198)
CLIENTS: dict[str, tuple[int | None, int | None]] = {
    "connect": (42, 203),
    # Deleted files in messages would not count; only resolvers of names need them.
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
}
PROCESSES: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
}
DENIED: dict[str, tuple[int | None, int | None]] = {
    # Sockets: there are the one that is inherited, and pairs like it
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # Namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    # The kernel and the machine
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "sync": (162, 81),
    # Files by other ways than their paths, and what Landlock does not see
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "truncate": (76, 45),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    # Memory and objects that outlive the process or that its limits do not count
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
IGNORED: dict[str, tuple[int | None, int | None]] = {
    # Landlock does not see them. Copying files calls them, so they do nothing instead of failing.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
UNSUPPORTED: dict[str, tuple[int | None, int | None]] = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
ONESELF: dict[str, tuple[int | None, int | None]] = {
    # The first argument is a process: 0 and the calling one are allowed.
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "get_robust_list": (274, 100),
}
SIGNALS: dict[str, tuple[int | None, int | None]] = {"kill": (62, 129), "tgkill": (234, 131)}
OPTIONS: dict[str, tuple[tuple[int | None, int | None], int, tuple[int, ...]]] = {
    # PR_SET_PDEATHSIG, PR_SCHED_CORE
    "prctl": ((157, 167), 0, (1, 62)),
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
    "fcntl": ((72, 25), 1, (8, 10, 15, 1024, 1026)),
    # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP
    "ioctl": ((16, 29), 1, (0x5412, 0x541C, 0x8901, 0x8902)),
}
"""Number, which argument, and the values of it that are denied."""
INTERNET = (2, 10)
"""The families AF_INET and AF_INET6."""
SOCKET_PAIR = (53, 199)
AF_UNIX, SOCK_STREAM, TYPE_BITS = 1, 1, 0xF
CLONE, CLONE3 = (56, 220), (435, 435)

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if true, to skip if false, operand."""


def restrict_calls(*, network: bool = False, processes: bool = False) -> None:
    """Install the filter in this thread and its descendants, without a way back.

    Without ``network`` there are no sockets, without ``processes`` no new processes and programs. Call it
    after PR_SET_NO_NEW_PRIVS, in the process whose id may be signalled: its own.

    Raises:
        OSError: this kernel or architecture cannot do it.
    """
    program = assemble_filter(platform.machine(), os.getpid(), network=network, processes=processes)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program), ctypes.addressof(buffer)), struct.calcsize("@HP")
    )
    libc = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    if libc.prctl(PR_SET_SECCOMP, mode, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the kernel refuses a seccomp filter: {os.strerror(error)}")


def assemble_filter(
    machine: str, process: int, *, network: bool = False, processes: bool = False
) -> list[Instruction]:
    """Assemble the filter for an architecture and the id of the process that it is for."""
    architecture = ARCHITECTURES.get(machine)
    if architecture is None:
        raise OSError(f"there is no seccomp filter for the architecture {machine}")
    column = architecture.column
    program = [*_check_architecture(architecture)]
    denied = {**DENIED, **({} if network else CLIENTS), **({} if processes else PROCESSES)}
    for table, answer in ((denied, errno.EPERM), (IGNORED, 0), (UNSUPPORTED, errno.EOPNOTSUPP)):
        for numbers in table.values():
            program += _at(numbers[column], [(RETURN, 0, 0, ERRNO | answer)])
    for numbers in ONESELF.values():
        program += _at(numbers[column], _allow_values(0, (0, process)))
    for numbers in SIGNALS.values():
        program += _at(numbers[column], _allow_values(0, (process,)))
    for numbers, argument, values in OPTIONS.values():
        program += _at(numbers[column], _deny_values(argument, values))
    program += _at(SOCKET[column], _allow_values(0, INTERNET if network else ()))
    program += _at(SOCKET_PAIR[column], _check_pair())
    program += _at(CLONE3[column], [(RETURN, 0, 0, ERRNO | errno.ENOSYS)])
    program += _at(CLONE[column], _check_clone(processes))
    return [*program, (RETURN, 0, 0, ALLOW)]


def _check_architecture(architecture: Architecture) -> Iterator[Instruction]:
    yield LOAD, 0, 0, ARCHITECTURE_AT
    yield JUMP_EQUAL, 1, 0, architecture.audit
    yield RETURN, 0, 0, KILL_PROCESS
    yield LOAD, 0, 0, NUMBER_AT
    yield JUMP_SET, 0, 1, X32_BIT
    yield RETURN, 0, 0, KILL_PROCESS
    yield JUMP_GREATER, 0, 1, LAST_NUMBER
    yield RETURN, 0, 0, ERRNO | errno.ENOSYS


def _at(number: int | None, body: Sequence[Instruction]) -> list[Instruction]:
    """Carry out ``body``, which ends with a return, for one system call."""
    return [] if number is None else [(JUMP_EQUAL, 0, len(body), number), *body]


def _allow_values(argument: int, values: Sequence[int]) -> list[Instruction]:
    # Processes are 32 bits wide: the kernel ignores the upper half of the argument.
    tests: list[Instruction] = []
    for value in values:
        tests += [(JUMP_EQUAL, 0, 1, value & 0xFFFFFFFF), (RETURN, 0, 0, ALLOW)]
    return [(LOAD, 0, 0, _place(argument)), *tests, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def _deny_values(argument: int, values: Sequence[int]) -> list[Instruction]:
    tests: list[Instruction] = []
    for value in values:
        tests += [(JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    return [(LOAD, 0, 0, _place(argument)), *tests, (RETURN, 0, 0, ALLOW)]


def _check_pair() -> list[Instruction]:
    # The ends of a stream cannot be connected to anything else; those of datagrams can.
    return [
        (LOAD, 0, 0, _place(0)),
        (JUMP_EQUAL, 0, 4, AF_UNIX),
        (LOAD, 0, 0, _place(1)),
        (AND, 0, 0, TYPE_BITS),
        (JUMP_EQUAL, 0, 1, SOCK_STREAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
    ]


def _check_clone(processes: bool) -> list[Instruction]:
    start: list[Instruction] = [
        (LOAD, 0, 0, _place(0)),
        (JUMP_SET, 0, 1, CLONE_NAMESPACES),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
    ]
    if processes:
        return [*start, (RETURN, 0, 0, ALLOW)]
    threads: list[Instruction] = [(JUMP_SET, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW)]
    return [*start, *threads, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def _place(argument: int) -> int:
    """Return where the lower half of an argument is; both architectures are little-endian."""
    return ARGUMENTS_AT + 8 * argument
