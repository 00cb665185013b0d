"""Command lines in the documentation: found in its blocks, and parsed as the programs would parse them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

SHELLS = ("console", "shell", "bash", "sh")
CHECKED_TYPES = (click.Choice, click.types.IntParamType, click.DateTime)
"""Types of parameters whose values do not depend on the machine."""


def list_commands(block: str) -> Iterator[list[str]]:
    """Iterate over the simple commands of a block, as words; without comments and prompts."""
    block = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "\n", block, flags=re.DOTALL | re.MULTILINE)
    block = re.sub(r"\\\n\s*", " ", block)
    for line in block.splitlines():
        lexer = shlex.shlex(re.sub(r"^\s*\$ ", "", line), posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("();|&"):
                yield from [words] if words else []
                words = []
            else:
                words.append(word)
        if words:
            yield words


def find_arguments(words: list[str], program: str) -> list[str] | None:
    """Find the arguments of a program in a command; None if the command runs another one."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words and words[0] == "sudo":
        return find_arguments(words[3:] if words[1] == "-u" else words[1:], program)
    if not words or not _runs_program(words, program):
        return None
    position = next(n for n, word in enumerate(words) if word.rpartition("/")[2] == program)
    arguments = words[position + 1 :]
    end = next((n for n, word in enumerate(arguments) if set(word) <= set("<>")), len(arguments))
    return arguments[:end]


def _runs_program(words: list[str], program: str) -> bool:
    """Whether a command runs a program, also in a container."""
    if words[0].rpartition("/")[2] == program:
        return True
    return words[0] in ("docker", "kubectl") and program in words and bool({"exec", "run"} & set(words))


def check_arguments(command: click.Command, arguments: list[str]) -> None:
    """Parse arguments as a command does, without running it; click.UsageError if it would refuse them."""
    context = click.Context(command, **command.context_settings)
    if "--help" in arguments or "-h" in arguments:
        return
    if isinstance(command, click.Group):
        _check_group(command, context, arguments)
        return
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if rest and not context.ignore_unknown_options:
        raise click.UsageError(f"unexpected arguments: {' '.join(rest)}")
    for parameter in command.params:
        value = values.get(parameter.name)
        missing = value is None or value == () or type(value).__name__ == "Sentinel"
        if missing and parameter.required:
            raise click.MissingParameter(ctx=context, param=parameter)
        if not missing and isinstance(parameter.type, CHECKED_TYPES):
            parameter.type_cast_value(context, value)


def _check_group(group: click.Group, context: click.Context, arguments: list[str]) -> None:
    parser = group.make_parser(context)
    parser.allow_interspersed_args = False
    _, rest, _ = parser.parse_args(list(arguments))
    if not rest:
        if not group.invoke_without_command and not group.no_args_is_help:
            raise click.UsageError("a command is missing")
        return
    command = group.get_command(context, rest[0])
    if command is None:
        raise click.NoSuchOption(rest[0], message=f"there is no command {rest[0]}")
    check_arguments(command, rest[1:])
