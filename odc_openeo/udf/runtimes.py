from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from odc_openeo.errors import InvalidRuntime

@dataclass(frozen=True)
class Runtime:
    name: str

def find_refusal(config: Any) -> str | None:
    return None

def choose_version(config: Any, runtime: str, version: str | None) -> Runtime:
    if runtime.lower() != "python":
        raise InvalidRuntime(runtime=runtime, available="Python")
    return Runtime("Python")
