"""Tables of the index driver ``postgis``, which are not public API; a test fails if they change.

They are apart from those of ``postgres`` because the import takes half a second.
"""

from __future__ import annotations

from typing import Any, Final

from datacube.drivers.postgis._core import ALEMBIC_INI_LOCATION as ALEMBIC_INI_LOCATION
from datacube.drivers.postgis._core import COMPATIBLE_MIGRATIONS as COMPATIBLE_MIGRATIONS
from datacube.drivers.postgis._schema import (
    Dataset,
    DatasetSearchDateTime,
    DatasetSearchNumeric,
    DatasetSearchString,
)

DATASET: Final[Any] = Dataset.__table__
NUMBERS: Final[Any] = DatasetSearchNumeric.__table__
STRINGS: Final[Any] = DatasetSearchString.__table__
TIMES: Final[Any] = DatasetSearchDateTime.__table__
