"""The filter of system calls, carried out here for each architecture as the kernel would."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from odc_openeo.udf.child import seccomp
from odc_openeo.udf.child.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL_PROCESS, assemble_filter

PROCESS = 4711
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
I386, ARM = 0x40000003, 0x40000028

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
TABLES = {
    **seccomp.DENIED,
    **seccomp.CLIENTS,
    **seccomp.PROCESSES,
    **seccomp.IGNORED,
    **seccomp.UNSUPPORTED,
    **seccomp.ONESELF,
    **seccomp.SIGNALS,
    **{name: numbers for name, (numbers, _, _) in seccomp.OPTIONS.items()},
    "socket": seccomp.SOCKET,
    "socketpair": seccomp.SOCKET_PAIR,
    "clone": seccomp.CLONE,
    "clone3": seccomp.CLONE3,
}


def run_filter(program, architecture: int, number: int, *arguments: int) -> int:
    """Carry out a program of classic BPF; return its answer."""
    words = {seccomp.NUMBER_AT: number, seccomp.ARCHITECTURE_AT: architecture}
    for place in range(6):
        value = arguments[place] if place < len(arguments) else 0
        words[seccomp.ARGUMENTS_AT + 8 * place] = value & 0xFFFFFFFF
        words[seccomp.ARGUMENTS_AT + 8 * place + 4] = (value >> 32) & 0xFFFFFFFF
    accumulator, counter = 0, 0
    while True:
        operation, if_true, if_false, operand = program[counter]
        counter += 1
        if operation == seccomp.LOAD:
            accumulator = words[operand]
        elif operation == seccomp.AND:
            accumulator &= operand
        elif operation == seccomp.RETURN:
            return operand
        else:
            holds = {
                seccomp.JUMP_EQUAL: accumulator == operand,
                seccomp.JUMP_GREATER: accumulator > operand,
                seccomp.JUMP_SET: bool(accumulator & operand),
            }[operation]
            counter += if_true if holds else if_false


@pytest.fixture(params=ARCHITECTURES)
def machine(request):
    return request.param


@pytest.fixture
def call(machine):
    program = assemble_filter(machine, PROCESS)
    architecture = ARCHITECTURES[machine]

    def run(name: str, *arguments: int) -> int | None:
        number = TABLES[name][architecture.column]
        return None if number is None else run_filter(program, architecture.audit, number, *arguments)

    return run


def test_the_numbers_are_those_of_the_kernel(machine):
    path = HEADERS[machine]
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    official = {name: int(number) for name, number in lines}
    column = ARCHITECTURES[machine].column
    ours = {name: numbers[column] for name, numbers in TABLES.items() if name in official}
    assert ours == {name: official[name] for name in ours}
    assert len(ours) > 100


def test_calls_are_denied(call):
    for name in (*seccomp.DENIED, *seccomp.CLIENTS, *seccomp.PROCESSES):
        assert call(name) in (EPERM, None), name


def test_calls_of_programs_are_allowed(machine):
    program = assemble_filter(machine, PROCESS)
    architecture = ARCHITECTURES[machine]
    taken = {numbers[architecture.column] for numbers in TABLES.values()}
    for number in set(range(seccomp.LAST_NUMBER + 1)) - taken:
        assert run_filter(program, architecture.audit, number) == ALLOW
    for number in (463, 500, 2**29):
        assert run_filter(program, architecture.audit, number) == ENOSYS


def test_other_architectures_end_the_process(machine):
    program = assemble_filter(machine, PROCESS)
    others = {I386, ARM, *(a.audit for a in ARCHITECTURES.values())} - {ARCHITECTURES[machine].audit}
    for audit in others:
        assert run_filter(program, audit, 1) == KILL_PROCESS
    x32 = run_filter(program, ARCHITECTURES[machine].audit, 0x40000000 + 39)
    assert x32 == KILL_PROCESS


def test_signals_reach_the_process_itself_only(call):
    for name in seccomp.SIGNALS:
        assert call(name, PROCESS, 9) == ALLOW
        # The kernel takes the lower half of the argument.
        assert call(name, PROCESS | 1 << 40, 9) == ALLOW
        for process in (0, 1, -1, -PROCESS, PROCESS + 1, PROCESS << 32):
            assert call(name, process, 9) == EPERM


def test_limits_of_others_stay(call):
    for name in seccomp.ONESELF:
        assert call(name, 0) == call(name, PROCESS) == ALLOW
        assert call(name, 1) == call(name, -1) == EPERM


def test_threads_start_but_no_processes(call):
    threads = 0x3D0F00
    assert call("clone", threads) == ALLOW
    assert call("clone", 17) == call("clone", 0x4111) == EPERM
    assert call("clone3") == ENOSYS
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert call("clone", threads | flag) == EPERM


def test_options(call):
    for name, (_, argument, values) in seccomp.OPTIONS.items():
        for value in values:
            assert call(name, *[0] * argument, value) == EPERM
        assert call(name, *[0] * argument, 3) == ALLOW


def test_pairs_of_sockets_are_streams(call):
    stream, datagram, sequence, cloexec = 1, 2, 5, 0o2000000
    assert call("socketpair", 1, stream) == call("socketpair", 1, stream | cloexec) == ALLOW
    assert call("socketpair", 1, datagram | cloexec) == call("socketpair", 1, sequence) == EPERM
    assert call("socketpair", 2, stream) == EPERM


def test_modes_of_files_stay_without_an_error(call):
    for name in seccomp.IGNORED:
        assert call(name) in (ERRNO, None)


def test_network_and_programs_are_open_if_asked_for(machine):
    program = assemble_filter(machine, PROCESS, network=True, processes=True)
    architecture = ARCHITECTURES[machine]

    def run(name: str, *arguments: int) -> int:
        return run_filter(program, architecture.audit, TABLES[name][architecture.column] or 0, *arguments)

    assert run("socket", 2, 1) == run("socket", 10, 2) == run("connect", 3) == ALLOW
    assert run("execve") == run("clone", 17) == ALLOW
    for family in (1, 16, 17, 40):
        assert run("socket", family) == EPERM
    for name in ("bind", "listen", "ptrace", "unshare", "bpf", "keyctl"):
        assert run(name) == EPERM
    assert run("clone", 0x10000000 | 17) == EPERM


def test_the_program_fits_the_kernel(machine):
    program = assemble_filter(machine, PROCESS)
    assert len(program) < 4096
    assert all(max(if_true, if_false) < 256 for _, if_true, if_false, _ in program)


def test_an_architecture_without_a_filter():
    with pytest.raises(OSError, match="riscv64"):
        assemble_filter("riscv64", PROCESS)
