"""The official process test vectors and descriptions, where the official material is at hand."""

from __future__ import annotations

import itertools

import pytest

from odc_openeo.registry.process import PROCESSES
from tests.conformance import descriptions, vectors

needs_vectors = pytest.mark.skipif(
    not vectors.DEFAULT.is_dir(), reason="the official test vectors are not beside the repository"
)
needs_descriptions = pytest.mark.skipif(
    not descriptions.DEFAULT.is_dir(),
    reason="the official process descriptions are not beside the repository",
)

GROUPS = {
    process: list(group)
    for process, group in itertools.groupby(vectors.cases(vectors.DEFAULT), key=lambda case: case.process)
}


@needs_vectors
@pytest.mark.parametrize("process", sorted(GROUPS) or ["none"])
def test_vectors(process: str) -> None:
    problems = {case.index: vectors.failures(case) for case in GROUPS[process]}
    assert {index: differences for index, differences in problems.items() if differences} == {}


@needs_descriptions
def test_descriptions_equal_the_official_ones_apart_from_prose() -> None:
    official = descriptions.official(descriptions.DEFAULT)
    compared = {
        id_: list(descriptions.differences(PROCESSES[id_].to_dict(), theirs))
        for id_, theirs in official.items()
        if id_ in PROCESSES
    }
    assert len(compared) > 100
    assert {id_: differences for id_, differences in compared.items() if differences} == {}
