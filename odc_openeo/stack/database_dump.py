"""Dump and restore schemas of a database with PostgreSQL's own programs, those of the embedded server."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from odc_openeo.stack.postgres import find_programs, make_tool_environment

HEAD_LINES: Final = 60
NEWER_SETTING: Final = b"SET transaction_timeout = 0;\n"
"""A statement of newer programs that servers before version 17 do not know."""


class DumpError(RuntimeError):
    """A program of PostgreSQL failed; the message has what it said."""


@dataclass(frozen=True)
class Database:
    """A database, by its SQLAlchemy URL; passwords go to the programs by their environment."""

    url: Any

    @property
    def _environment(self) -> dict[str, str]:
        query = {name: str(value) for name, value in self.url.query.items()}
        address = {
            "PGHOST": self.url.host or query.get("host"),
            "PGPORT": self.url.port or query.get("port"),
            "PGUSER": self.url.username,
            "PGPASSWORD": self.url.password,
            "PGDATABASE": self.url.database,
            "PGSSLMODE": query.get("sslmode"),
            "PGSSLROOTCERT": query.get("sslrootcert"),
        }
        return make_tool_environment() | {n: str(value) for n, value in address.items() if value}

    def query(self, statement: str) -> list[str]:
        """Run one statement; return its rows, their columns separated by ``|``."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        return self._run("psql", *options).decode().splitlines()

    def list_schemas(self, names: Sequence[str]) -> list[str]:
        """List those of some schemas that exist; the names are constants."""
        return [name for name in names if self.query(f"SELECT to_regnamespace('{name}')") != [""]]

    def dump(self, schemas: Sequence[str], path: Path) -> None:
        """Write schemas to a file, all as they are at one moment."""
        options = [f"--schema={name}" for name in schemas]
        self._run("pg_dump", "-Fc", *options, f"--file={path}")

    def restore(self, path: Path, drop: Sequence[str], *, with_owners: bool) -> None:
        """Restore a dump in one transaction, which begins with dropping some schemas.

        ``with_owners``: owners and grants are those of the dump, whose roles must exist; else everything
        belongs to the user of the database.
        """
        owners = [] if with_owners else ["--no-owner", "--no-privileges"]
        options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "--file=-"]
        reader = self._start("pg_restore", *owners, "--file=-", str(path))
        writer = self._start("psql", *options, stdin=subprocess.PIPE)
        assert reader.stdout is not None
        assert writer.stdin is not None
        try:
            for name in drop:
                writer.stdin.write(f'DROP SCHEMA IF EXISTS "{name}" CASCADE;\n'.encode())
            for _ in range(HEAD_LINES):
                line = reader.stdout.readline()
                writer.stdin.write(b"" if line == NEWER_SETTING else line)
            while block := reader.stdout.read(2**20):
                writer.stdin.write(block)
            if reader.wait() == 0:
                writer.stdin.close()
        except BrokenPipeError:
            pass
        finally:
            self._finish(reader, writer)

    def _finish(self, reader: subprocess.Popen[bytes], writer: subprocess.Popen[bytes]) -> None:
        if reader.poll() != 0 and writer.poll() is None:
            # Without the end of the dump, the transaction must not be committed.
            writer.kill()
        for process, name in ((writer, "psql"), (reader, "pg_restore")):
            process.stdin = None
            if name == "pg_restore" and process.poll() is None:
                process.kill()
            _, said = process.communicate()
            if process.returncode:
                raise DumpError(f"{name} failed: {said.decode(errors='replace').strip()[-1000:]}")

    def _start(self, name: str, *options: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(find_programs() / name), *options],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
        )

    def _run(self, name: str, *options: str) -> bytes:
        output, said = (process := self._start(name, *options)).communicate()
        if process.returncode:
            raise DumpError(f"{name} failed: {said.decode(errors='replace').strip()[-1000:]}")
        return output
