"""JSON that travels between processes: nested as deeply as users may send it, which pickle cannot follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class JsonText:
    """A JSON value on its way to another process."""

    text: str


def encode_json(value: Any) -> Any:
    """Write arrays and objects as text; other values are left as they are."""
    return JsonText(json.dumps(value)) if type(value) in (dict, list) else value


def decode_json(value: Any) -> Any:
    """Undo `encode_json`."""
    return json.loads(value.text) if isinstance(value, JsonText) else value


class PickledAsJson:
    """A base of dataclasses whose ``json_fields`` hold JSON that may be nested deeply."""

    json_fields: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        """The fields, those of JSON as text."""
        fields = self.__dict__
        return {**fields, **{name: encode_json(fields[name]) for name in self.json_fields}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the fields, also of frozen classes."""
        self.__dict__.update({name: decode_json(value) for name, value in state.items()})
