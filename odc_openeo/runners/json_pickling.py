"""JSON passed between processes as a string: pickle cannot handle the nesting depth that users may send."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class JsonText:
    """A JSON value on its way to another process."""

    text: str


def encode_json(value: Any) -> Any:
    """Encode arrays and objects as strings; other values are left as they are."""
    return JsonText(json.dumps(value)) if type(value) in (dict, list) else value


def decode_json(value: Any) -> Any:
    """Undo `encode_json`."""
    return json.loads(value.text) if isinstance(value, JsonText) else value


class PickledAsJson:
    """Base of dataclasses whose ``json_fields`` hold JSON that may be deeply nested."""

    json_fields: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        """The fields, JSON ones encoded as strings."""
        fields = self.__dict__
        return {**fields, **{name: encode_json(fields[name]) for name in self.json_fields}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields, also those of frozen classes."""
        self.__dict__.update({name: decode_json(value) for name, value in state.items()})
