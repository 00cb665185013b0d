"""Options of the bridge, and xarray's accelerators, which work on NumPy and dask only."""

from __future__ import annotations

from typing import Any

import xarray as xr

OPTIONS: dict[str, Any] = {"user_functions": False}


class set_options:  # noqa: N801 (named like that of xarray)
    """Set options, for good or within a `with` statement.

    With `user_functions=True`, the source of functions given to `xarray.apply_ufunc` is sent to the back-end
    as user-defined functions (`run_udf`), where there is no process for what they do.
    """

    def __init__(self, **options: Any) -> None:
        unknown = options.keys() - OPTIONS.keys()
        if unknown:
            raise ValueError(f"there is no option {', '.join(sorted(unknown))}, but {', '.join(OPTIONS)}")
        self._before = dict(OPTIONS)
        OPTIONS.update(options)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exception: object) -> None:
        OPTIONS.update(self._before)


def switch_off_accelerators() -> None:
    """Let xarray call NumPy instead of flox, bottleneck and numbagg, which need NumPy arrays."""
    xr.set_options(use_flox=False, use_bottleneck=False, use_numbagg=False)
