"""schemathesis on the openEO API's own description against a running service.

    python -m tests.conformance.api [--cases N] [--url URL] [--operation TEXT] [--seed N] [DESCRIPTION]

Requests are those of a user who is signed in, with ids of jobs, processes and files that the user has, and
without. Printed for each operation: cases, how they were answered, faults. Exit status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import hypothesis
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.schemas import APIOperation

from tests.conformance.owned import Owned, is_good, sign_in
from tests.conftest import start_stack

DESCRIPTION: Final = Path(__file__).resolve().parents[3] / "shared" / "openeo" / "openapi-1.3.0.yaml"
SECONDS: Final = 60.0
PROVIDER: Final = {"id": "local", "issuer": "http://127.0.0.1:9", "title": "Local", "audiences": ["openeo"]}

IMPOSSIBLE: Final = {
    ("POST /validation", "AcceptedNegativeData"): "faults of a process are to be answered with 200",
}
"""What the description itself makes impossible: by operation and kind of fault, with the reason."""

LEFT_OUT: Final = {
    "positive_data_acceptance": "graphs by chance cannot run, ids by chance do not exist",
    "ignored_auth": "sends wrong passwords, and so locks the user out, as it should",
}
"""Checks that are not made, the second one only of ``GET /credentials/basic``."""

REPEATED: Final = ("ignored_auth", "unsupported_method")
"""Checks that send more requests, much alike: made for one case in ten."""


@dataclass
class Tally:
    """The figures of one operation: answers by status, faults by kind with an example of each."""

    label: str
    statuses: Counter[int] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    excused: Counter[str] = field(default_factory=Counter)

    @property
    def cases(self) -> int:
        return sum(self.statuses.values())

    def count(self, *classes: int) -> int:
        """Answers whose status is of one of the classes (2 for 200 to 299)."""
        return sum(number for status, number in self.statuses.items() if status // 100 in classes)

    def note(self, group: FailureGroup) -> None:
        """Remember the first example of each kind of fault."""
        for entry in group.exceptions:
            kind = type(entry).__name__
            if (self.label, kind) in IMPOSSIBLE:
                self.excused[kind] += 1
            else:
                self.faults.setdefault(kind, f"{group.message or group}")


def load(path: Path) -> Any:
    """The description as schemathesis reads it."""
    load_all_checks()
    schema = schemathesis.openapi.from_path(path)
    for relax in (_any_kind_of_schema, _any_argument, _costs_are_numbers, _templates):
        relax(schema.raw_schema)
    return schema


def _any_kind_of_schema(description: Any) -> None:
    # A schema without subtype fits all alternatives, and exactly one is allowed.
    schema = description["components"]["schemas"]["process_json_schema"]
    schema["anyOf"] = schema.pop("oneOf")


def _any_argument(description: Any) -> None:
    # The tool cannot make values of schemas that forbid members one by one.
    description["components"]["schemas"]["process_argument_value"] = {}


def _templates(description: Any) -> None:
    # Clients put numbers of tiles into the braces of the address of a service; a URI has no braces.
    description["components"]["schemas"]["service"]["properties"]["url"].pop("format")


def _costs_are_numbers(description: Any) -> None:
    # Headers are texts; the tool reads one as a number only if it can be nothing else.
    for path, method, status in (("/result", "post", "200"), ("/jobs/{job_id}/results", "get", "200")):
        headers = description["paths"][path][method]["responses"][status]["headers"]
        headers["OpenEO-Costs"] = {"schema": {"type": "number", "minimum": 0}}


def operations(schema: Any, wanted_name: str = "") -> Iterator[APIOperation]:
    """The operations whose method or path holds a text."""
    for result in schema.get_all_operations():
        operation = result.ok()
        if wanted_name in _name(operation):
            yield operation


def _name(operation: APIOperation) -> str:
    return f"{operation.method.upper()} {operation.path}"


def check(operation: APIOperation, owned: Owned, cases: int, seed: int) -> Tally:
    """Send so many requests to an operation."""
    tally = Tally(_name(operation))
    modes = [GenerationMode.POSITIVE]
    if any(True for _ in operation.iter_parameters()) or operation.body:
        modes.append(GenerationMode.NEGATIVE)
    for mode in modes:
        _fuzz(operation.as_strategy(mode), partial(_send, owned, tally), cases // len(modes), seed)
    return tally


def _fuzz(
    strategy: st.SearchStrategy[Case], send: Callable[[Case, random.Random], None], cases: int, seed: int
) -> None:
    settings = hypothesis.settings(
        max_examples=max(cases, 1),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    generator = random.Random(seed)

    @hypothesis.seed(seed)
    @settings
    @hypothesis.given(case=strategy)
    def run(case: Case) -> None:
        send(case, generator)

    run()


def _send(owned: Owned, tally: Tally, case: Case, generator: random.Random) -> None:
    """One request, in two of three cases about something that the user has."""
    if generator.random() < 3 / 4:
        owned.put_into(case, generator)
    # Where the request lacks its token on purpose, it is sent so.
    headers = owned.headers(case.path) if is_good(case, ParameterLocation.HEADER) else None
    response = case.call(base_url=owned.base(case.path), headers=headers, timeout=SECONDS)
    tally.statuses[response.status_code] += 1
    try:
        case.validate_response(response, headers=headers, excluded_checks=_left_out(case, generator))
    except FailureGroup as group:
        tally.note(group)


def _left_out(case: Case, generator: random.Random) -> list[Any]:
    names = [name for name in LEFT_OUT if name != "ignored_auth" or case.path == "/credentials/basic"]
    if generator.random() > 0.1:
        names += REPEATED
    return [check for check in CHECKS.get_all() if check.__name__ in names]


def run(owned: Owned, description: Path, cases: int, wanted_name: str = "", seed: int = 1) -> list[Tally]:
    """Check the service of a user with some number of requests in all."""
    offered = owned.offered()
    result = [
        operation for operation in operations(load(description), wanted_name) if _name(operation) in offered
    ]
    return [check(operation, owned, max(cases // len(result), 1), seed) for operation in result]


def not_offered(owned: Owned, description: Path) -> list[str]:
    """The operations of the description that the service does not list."""
    offered = owned.offered()
    return [
        _name(operation) for operation in operations(load(description)) if _name(operation) not in offered
    ]


def report(tallies: Sequence[Tally]) -> int:
    """Print the figures; the number of faults."""
    print(f"{'operation':44}{'cases':>7}{'2xx':>7}{'4xx':>7}{'5xx':>6}  faults")
    for tally in tallies:
        figures = f"{tally.cases:7}{tally.count(2, 3):7}{tally.count(4):7}{tally.count(5):6}"
        print(f"{tally.label:44}{figures}  {', '.join(sorted(tally.faults)) or '-'}")
    for tally in tallies:
        for kind, example in tally.faults.items():
            print(f"\n== {tally.label}: {kind}\n{example}")
        for kind, number in tally.excused.items():
            print(f"\nnot counted: {tally.label}: {number} {kind}: {IMPOSSIBLE[tally.label, kind]}")
    faults = sum(len(tally.faults) for tally in tallies)
    errors = sum(tally.count(5) for tally in tallies)
    print(f"\n{sum(t.cases for t in tallies)} cases, {errors} answers of 5xx, {faults} kinds of faults")
    return faults + errors


@contextmanager
def _stack() -> Iterator[str]:
    """The address of a service with the sample scenes and a provider that nobody asks, started for this."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-api-") as name:
        folder = Path(name)
        # PostgreSQL runs as another user if this one is root.
        folder.chmod(0o711)
        (folder / "stack").mkdir()
        (folder / "providers.yaml").write_text(yaml.safe_dump({"providers": [PROVIDER]}))
        variables = {"ODC_OPENEO_OIDC_PROVIDERS": str(folder / "providers.yaml")}
        stack = start_stack(folder / "stack", ready_within=600, **variables)
        try:
            yield stack.url
        finally:
            stack.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("description", nargs="?", type=Path, default=DESCRIPTION)
    parser.add_argument("--cases", type=int, default=10_000, help="requests in all")
    parser.add_argument("--url", help="a running service with the user demo; without it, one is started")
    parser.add_argument("--operation", default="", help="only those whose method or path holds this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with ExitStack() as started:
        url = options.url or started.enter_context(_stack())
        owned = sign_in(url)
        tallies = run(owned, options.description, options.cases, options.operation, options.seed)
        missing = not_offered(owned, options.description)
    faults = report(tallies)
    print(f"not offered: {', '.join(missing) or 'nothing'}")
    return 1 if faults or missing else 0


if __name__ == "__main__":
    sys.exit(main())
