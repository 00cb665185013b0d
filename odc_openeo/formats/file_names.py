"""Names of result files, made of what users call things: safe on every file system and in every URL."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from odc_openeo.formats.options import make_option_error

DEFAULT_STEM: Final = "result"
LONGEST_STEM: Final = 80
"""Bytes of a prefix; file systems allow 255 for a name with date, band and all."""
LONGEST_PART: Final = 40
"""Bytes of each further part of a name: a label, a feature."""
RESERVED: Final = frozenset({"thumbnail", "collection", "items", "about"})
"""Names of files that the service itself puts beside results."""


def make_safe_name(text: Any, longest: int = LONGEST_PART) -> str:
    """Make a part of a file name: letters, digits and ``. _ + -``; empty if nothing of the text is left.

    It never begins or ends with a dot or hyphen, has no two dots in a row and at most ``longest`` bytes.
    """
    name = re.sub(r"[^\w.+-]+", "-", unicodedata.normalize("NFC", str(text)[: 10 * longest]))
    name = re.sub(r"\.{2,}", ".", name).strip(".-")
    return name.encode()[:longest].decode(errors="ignore").strip(".-")


def make_safe_names(texts: Sequence[Any]) -> list[str]:
    """Make parts of file names that differ, even where upper and lower case are the same: else numbered."""
    names = [make_safe_name(text) for text in texts]
    folded = [name.casefold() for name in names]
    if "" in folded or len(set(folded)) < len(folded):
        return [f"{name}-{i}" if name else str(i) for i, name in enumerate(names)]
    return names


def make_stem(prefix: str) -> str:
    """Make the stem of file names of the option ``filename_prefix``.

    Raises:
        ProcessParameterInvalid: no character of it can be part of a name.
    """
    stem = make_safe_name(prefix, LONGEST_STEM)
    if not any(character.isalnum() for character in stem):
        raise make_option_error("option 'filename_prefix' has no letter or digit that can begin a file name.")
    return f"{stem}_{DEFAULT_STEM}" if stem.casefold() in RESERVED else stem


def choose_stems(prefixes: Sequence[str | None]) -> list[str]:
    """Choose a stem for the files of each output, so that no two outputs have a file of the same name.

    ``prefixes`` are those that users have given, None for none.
    """
    count = len(prefixes)
    defaults = [DEFAULT_STEM] if count == 1 else [f"{DEFAULT_STEM}_{i}" for i in range(1, count + 1)]
    stems = [d if p is None else make_stem(p) for p, d in zip(prefixes, defaults, strict=True)]
    if not any(_can_clash(a, b) for i, a in enumerate(stems) for b in stems[:i]):
        return stems
    return [f"{i}_{stem}" for i, stem in enumerate(stems, 1)]


def _can_clash(one: str, other: str) -> bool:
    """Whether a stem with parts appended, joined by underscores, may be the other one."""
    a, b = f"{one.casefold()}_", f"{other.casefold()}_"
    return a.startswith(b) or b.startswith(a)
