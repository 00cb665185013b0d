"""Packages that user code requires: wheels of the operator's index, installed once for all users.

An environment depends on the runtime, the index and the requirements, and on nothing else that a user can
choose. It is made by pip in the sandbox, and user code can only read it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from cachetools import TTLCache
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from odc_openeo.config import PREFIX, Config, child_environment
from odc_openeo.errors import UdfUnavailable
from odc_openeo.udf.builders import Builder
from odc_openeo.udf.caches import FolderCache, Lease, find_cache_folder, find_share
from odc_openeo.udf.folders import MOST_ENTRIES, open_own_folder
from odc_openeo.udf.requirements import find_problem
from odc_openeo.udf.runtimes import NEEDED, Interpreter
from odc_openeo.udf.settings import RelayRules, UdfSettings
from odc_openeo.untrusted.safe_http import Policy

KEPT_S: Final = 30 * 24 * 3600
WORK_SHARE: Final = 3
"""Bytes that pip may use for each byte of the result: wheels are kept next to what is in them."""
PIP_SECTIONS: Final = ("global", "install", ":env:")
"""Where pip has its settings for installing, the strongest last."""
PIP_HOSTS: Final = "hosts of the default index"
PIP_QUESTION: Final = """\
from pip._internal.cli.main import main
from pip._internal.models.index import PyPI
print(PyPI.netloc, PyPI.file_storage_domain, flush=True)
main(["config", "list"])
"""
"""Prints the hosts of the index that pip uses without any settings, then its settings."""
SYSTEM_NAMES: Final = ("/etc/debian_version", "/etc/os-release", "/etc/lsb-release")
"""Files that pip reads to tell the index about the system."""
CONNECT_S: Final = 15
RETRIES: Final = 2
LONGEST_REASON: Final = 1500
RETRY_S: Final = 60.0
"""Seconds for which requirements that could not be installed are not tried again: tiles ask often."""

log = logging.getLogger(__name__)

_failures: Final[TTLCache[str, str]] = TTLCache(1000, RETRY_S)
_lock: Final = threading.Lock()


@dataclass(frozen=True)
class PackageIndex:
    """Where pip finds wheels: its options, constraints, what it reads, and hosts that the operator trusts."""

    options: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether no network is needed."""
        return "--no-index" in self.options


def open_packages(
    config: Config,
    settings: UdfSettings,
    interpreter: Interpreter,
    owner: str,
    requirements: Sequence[Requirement],
    run_log: logging.Logger,
) -> Lease:
    """Return a lease of the folder of the packages that a runtime lacks; install them unless they are there.

    What is installed counts as that of ``owner``, the id of a user, whoever uses it later.

    Raises:
        UdfUnavailable: the operator does not allow it, a requirement cannot be satisfied, or it takes too
            long or too much; the text says which and why.
    """
    if not config.udf_install:
        raise _explain_missing(interpreter, requirements)
    index = find_package_index(config, interpreter.python)
    top = open_own_folder(find_cache_folder(config) / "packages")
    # Two installations one after the other may be waited for.
    wait_s, share = 2 * config.udf_install_timeout_s, find_share(config, owner)
    cache = FolderCache(top, int(config.udf_cache_bytes), KEPT_S, wait_s, share)
    texts = tuple(sorted(map(_normalize, requirements)))
    installation = _Installation(config, settings, interpreter, index, texts, run_log)
    return cache.open(installation.key, installation.fill)


def _explain_missing(interpreter: Interpreter, requirements: Sequence[Requirement]) -> UdfUnavailable:
    problems = ((r, find_problem(r, interpreter)) for r in requirements)
    requirement, problem = next((r, p) for r, p in problems if p is not None)
    return UdfUnavailable(
        reason=f"the code requires '{requirement}', and {problem}. Libraries are not installed here; "
        "GET /udf_runtimes lists those of each runtime."
    )


def _normalize(requirement: Requirement) -> str:
    plain = Requirement(str(requirement))
    plain.name = canonicalize_name(plain.name)
    return str(plain)


@dataclass(frozen=True)
class _Installation:
    """The installation of requirements, all in one environment, for a runtime."""

    config: Config
    settings: UdfSettings
    interpreter: Interpreter
    index: PackageIndex
    requirements: tuple[str, ...]
    log: logging.Logger

    @property
    def key(self) -> str:
        """A digest of all that the environment depends on, which user code sees as the name of its folder."""
        interpreter, index = self.interpreter, self.index
        runtime = [interpreter.python, interpreter.release, sorted(interpreter.libraries.items())]
        # Without passwords, which could be guessed from it.
        options = [re.sub(r"//[^/@]*@", "//", option) for option in index.options]
        parts = [runtime, options, index.constraints, self.requirements]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def fill(self, target: Path) -> None:
        """Install what the runtime lacks into an empty folder."""
        with _lock:
            reason = _failures.get(self.key)
        if reason is not None:
            raise UdfUnavailable(reason=reason)
        begin, builder = time.monotonic(), self._make_builder()
        header = {
            "requirements": list(self.requirements),
            "kept": [f"{name}=={self.interpreter.versions[name]}" for name in NEEDED],
            "options": list(self.index.options),
            "constraints": list(self.index.constraints),
        }
        with builder.start(self.settings) as child:
            reply = builder.run(child, header, target)
        if reply.get("problem") is not None:
            log.info("pip could not install %s: %s", self.requirements, reply["problem"])
            reason = explain_failure(str(reply["problem"]), self.requirements)
            with _lock:
                _failures[self.key] = reason
            raise UdfUnavailable(reason=reason)
        installed = sorted(dict(reply["installed"]).items())
        names = ", ".join(f"{name} {version}" for name, version in installed) or "nothing"
        self.log.info("Installed for the code: %s (%.1f s)", names, time.monotonic() - begin)

    def _make_builder(self) -> Builder:
        config, index, most = self.config, self.index, int(self.config.udf_install_bytes)
        anywhere = RelayRules(("*",), Policy.from_config(config), index.hosts)
        return Builder(
            program="installer",
            task=f"installing {', '.join(self.requirements)}",
            python=self.interpreter.python,
            seconds=config.udf_install_timeout_s,
            work_bytes=WORK_SHARE * most,
            most_bytes=most,
            most_entries=MOST_ENTRIES,
            files=(*index.files, *index.constraints, *SYSTEM_NAMES),
            relay=None if index.is_local else anywhere,
        )


def explain_failure(output: str, requirements: Sequence[str]) -> str:
    """Explain from the output of pip which requirement failed and why, without addresses and paths."""
    lines = [line.strip() for line in output.splitlines()]
    missing = re.search(r"satisfies the requirement (.+) \(from versions: (.*)\)", output)
    conflict = [line for line in lines if re.match(r"(The user requested|[\w.-]+ \S+ depends on) ", line)]
    if conflict:
        text = f"these requirements exclude each other: {'; '.join(conflict)}"
    elif missing is not None and any("Retrying (" in line or "Could not fetch" in line for line in lines):
        text = f"the package index was asked for '{missing[1]}' and does not respond, or refuses the request"
    elif missing is not None:
        versions = "" if missing[2] == "none" else f"; it has the versions {missing[2]}"
        text = (
            f"the index has no wheel of '{missing[1]}' for this version of Python and this platform"
            f"{versions} (source packages are not installed)"
        )
    else:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        text = errors[0] if errors else "pip gave no reason"
    text = re.sub(r"\S*(://|/)\S*", "…", text)[:LONGEST_REASON].rstrip(".: ")
    return f"installing {', '.join(requirements)} failed: {text}."


# --- The index -------------------------------------------------------------------------------------


def find_package_index(config: Config, python: str) -> PackageIndex:
    """Find the package index: that of the settings, else the one that pip is configured to use.

    Raises:
        UdfUnavailable: the setting is neither a URL nor a folder, or pip does not work.
    """
    if config.udf_package_index is None:
        return _make_index(_ask_pip(python))
    place = config.udf_package_index.get_secret_value()
    if place.startswith(("http://", "https://")):
        return _make_index({"index-url": place})
    if os.path.isdir(place):
        return _make_index({"no-index": "true", "find-links": place})
    raise UdfUnavailable(reason=f"{PREFIX}UDF_PACKAGE_INDEX must be a URL or a folder of wheels.")


@lru_cache(maxsize=8)
def _ask_pip(python: str) -> Mapping[str, str]:
    """Return the configuration of pip, of its files and of the environment of this service."""
    command = [python, "-I", "-c", PIP_QUESTION]
    variables = {
        name: value
        for name, value in child_environment().items()
        if name.startswith(("PIP_", "XDG_CONFIG_")) or name == "HOME"
    }
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=variables)
    except (OSError, subprocess.SubprocessError):
        # The pip that Python brings along has no configuration.
        return {}
    hosts, *lines = done.stdout.splitlines()
    values: dict[str, dict[str, str]] = {section: {} for section in PIP_SECTIONS}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        with contextlib.suppress(ValueError, SyntaxError):
            values.get(section, {})[option] = str(ast.literal_eval(value))
    options = {option: value for section in PIP_SECTIONS for option, value in values[section].items()}
    return {**options, PIP_HOSTS: hosts}


def _make_index(settings: Mapping[str, str]) -> PackageIndex:
    options = ["--retries", str(RETRIES), "--timeout", str(CONNECT_S)]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    files, hosts, constraints = list[str](), list[str](), list[str]()
    for name in ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "constraint"):
        for value in settings.get(name, "").split():
            if name == "constraint":
                constraints.append(value)
            else:
                options += [f"--{name}", value]
            url = urlsplit(value if name != "trusted-host" else f"https://{value}")
            if url.scheme in ("http", "https") and url.hostname:
                port = url.port or (443 if url.scheme == "https" else 80)
                hosts.append(f"{url.hostname.lower()}:{port}")
            elif url.scheme in ("", "file"):
                files.append(_find_local_folder(unquote(url.path)))
    if "index-url" not in settings:
        hosts += [f"{host}:443" for host in settings.get(PIP_HOSTS, "").split()]
    return PackageIndex(tuple(options), tuple(constraints), tuple(files), tuple(hosts))


def _find_local_folder(path: str) -> str:
    """Return what pip reads for a local index: its pages mostly refer to files next to their folder."""
    folder = Path(path)
    return str(folder.parent if folder.name == "simple" else folder)
