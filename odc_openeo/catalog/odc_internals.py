"""Tables of the index that are not public API of Open Data Cube; a test fails if they change."""

from __future__ import annotations

from datacube.drivers.postgres._schema import DATASET as DATASET
from datacube.drivers.postgres._schema import DATASET_LOCATION as DATASET_LOCATION
