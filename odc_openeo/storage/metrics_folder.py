"""The folder in which the HTTP processes and job workers of one launcher share their metrics."""

from __future__ import annotations

import contextlib
import shutil
from typing import Final

from odc_openeo.config import METRICS_FOLDER, Config
from odc_openeo.storage.scratch_folders import describe_process, is_abandoned

FOLDER: Final = "scratch/metrics"


def make_metrics_folder(config: Config) -> dict[str, str]:
    """Make the folder for the processes that this one will start or become; return their variables for it.

    No variables if no setting asks for metrics. Folders of launchers that have ended are removed.
    """
    if not config.has_metrics:
        return {}
    top = config.data_dir / FOLDER
    with contextlib.suppress(OSError):
        for old in top.iterdir():
            if is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True)
    folder = top / describe_process()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {METRICS_FOLDER: str(folder)}
