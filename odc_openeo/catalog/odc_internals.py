"""Parts of Open Data Cube that are not its public API; a test fails if they change."""

from __future__ import annotations

from datacube.drivers.postgres._connections import (
    handle_dynamic_token_authentication as use_tokens_as_passwords,
)
from datacube.drivers.postgres._schema import DATASET as DATASET
from datacube.drivers.postgres._schema import DATASET_LOCATION as DATASET_LOCATION

__all__ = ["DATASET", "DATASET_LOCATION", "use_tokens_as_passwords"]
