"""Masks from the scene classification (SCL) of Sentinel-2 Level-2A, dilated around clouds and shadows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import scipy.ndimage
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.block_overlap import map_with_overlap
from odc_openeo.cube.coordinates import drop_single_label
from odc_openeo.errors import LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.processes.filters import find_band_positions
from odc_openeo.processes.masks import mask
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import SpatialCube, String

MAX_SIZE: Final = 1001
"""Largest kernel in pixels; each pixel takes two multiplications per pixel of its length."""
NEAR: Final = 0.057
"""Share of the weights of the first kernel above which a pixel is masked, about half a kernel away."""
FAR: Final = 0.025
"""Share of the weights of the second kernel above which a pixel is masked."""

Size = Annotated[int, Schema({"type": "integer", "minimum": 0})]
Classes = Annotated[Sequence[int], Schema({"type": "array", "items": {"type": "integer"}})]

_LINKS: Final = [
    {
        "rel": "about",
        "href": "https://sentinels.copernicus.eu/web/sentinel/technical-guides/sentinel-2-msi/level-2a/algorithm-overview",
        "title": "The classes of the scene classification",
    }
]


def _needs_of_mask(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    name = arguments.get("scl_band_name") or "SCL"
    needed = _needs_of_masking(demand, arguments)["data"]
    return {"data": replace(needed, bands=(name,)) if isinstance(name, str) else needed}


def _needs_of_masking(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names = {"kernel1_size": 17, "kernel2_size": 77, "erosion_kernel_size": 3}
    sizes = [default if arguments.get(n) is None else arguments[n] for n, default in names.items()]
    if not all(isinstance(size, int) for size in sizes):
        return {"data": demand.at_all_places().of_all_bands()}
    return {"data": demand.of_all_bands().with_margin(_Dilation(*sizes).reach)}


@process(categories=["cubes", "masks"], experimental=True, links=_LINKS, needs=_needs_of_mask)
def to_scl_dilation_mask(
    data: SpatialCube,
    erosion_kernel_size: Size = 3,
    mask1_values: Classes = (2, 4, 5, 6, 7),
    mask2_values: Classes = (3, 8, 9, 10, 11),
    kernel1_size: Size = 17,
    kernel2_size: Size = 77,
    scl_band_name: String = "SCL",
) -> SpatialCube:
    """Make a mask of clouds, cloud shadows and their surroundings from a scene classification.

    Two masks are dilated and combined. The first one marks all classes that are *not* in `mask1_values`; it
    is eroded first, so that single bright pixels are not taken for clouds, and dilated a little. The second
    one marks the classes in `mask2_values` and is dilated more.

    A mask is dilated by its weighted mean under a Gaussian kernel (standard deviation: a sixth of the size
    of the kernel): pixels are masked where it is above 0.057 for the first and 0.025 for the second mask.
    Beyond the border of the cube nothing is marked. All sizes are in pixels of the cube.

    Args:
        data: A raster cube with a scene classification: a band of that name, or no bands at all.
        erosion_kernel_size: The side of the square by which the first mask is eroded; 0 for none.
        mask1_values: The classes that the first mask keeps, all others are masked.
        mask2_values: The classes that the second mask marks.
        kernel1_size: The size of the kernel of the first mask, an odd number; 0 for no dilation.
        kernel2_size: The size of the kernel of the second mask, an odd number; 0 for no dilation.
        scl_band_name: The name of the band with the scene classification.

    Returns:
        A cube of booleans that are true where pixels are to be masked, for example with `mask`. Bands, if
        there are any, are reduced to the one of the scene classification.

    Raises:
        LabelNotAvailable: There is no band of that name.
    """
    dilation = _Dilation(kernel1_size, kernel2_size, erosion_kernel_size)
    dilation.check("to_scl_dilation_mask")
    classes = _select_classification(data, scl_band_name)
    ordered = classes.transpose(..., cube.Y, cube.X)
    mark = partial(
        _mark_block, dilation=dilation, clear=np.asarray(mask1_values), cloudy=np.asarray(mask2_values)
    )
    if not ordered.size:
        marked = ordered.data.astype(bool)
    else:
        # A class that no user can give stands beyond the border.
        whole = ordered.data.astype(np.float32)
        marked = map_with_overlap(mark, whole, (dilation.reach,) * 2, np.inf, dtype=bool)
    bare = cube.with_nodata(ordered, None)
    return restore_coordinates(bare.copy(data=marked).transpose(*classes.dims), bare)


@process(
    categories=["cubes", "masks"],
    experimental=True,
    links=_LINKS,
    needs=_needs_of_masking,
    raw_values_of=("data",),
)
def mask_scl_dilation(
    data: SpatialCube,
    erosion_kernel_size: Size = 3,
    mask1_values: Classes = (2, 4, 5, 6, 7),
    mask2_values: Classes = (3, 8, 9, 10, 11),
    kernel1_size: Size = 17,
    kernel2_size: Size = 77,
    scl_band_name: String = "SCL",
) -> SpatialCube:
    """Mask clouds, cloud shadows and their surroundings with the scene classification in the same cube.

    All bands, that of the scene classification included, become no-data where `to_scl_dilation_mask` with
    the same arguments is true.

    Args:
        data: A raster cube with bands, one of them a scene classification.
        erosion_kernel_size: The side of the square by which the first mask is eroded; 0 for none.
        mask1_values: The classes that the first mask keeps, all others are masked.
        mask2_values: The classes that the second mask marks.
        kernel1_size: The size of the kernel of the first mask, an odd number; 0 for no dilation.
        kernel2_size: The size of the kernel of the second mask, an odd number; 0 for no dilation.
        scl_band_name: The name of the band with the scene classification.

    Returns:
        The masked cube with the same dimensions and labels.

    Raises:
        LabelNotAvailable: There is no band of that name.
    """
    marked = to_scl_dilation_mask(
        data, erosion_kernel_size, mask1_values, mask2_values, kernel1_size, kernel2_size, scl_band_name
    )
    for dimension in cube.dimensions_of_type(marked, "bands"):
        marked = drop_single_label(marked, dimension)
    return mask(data=data, mask=marked)


@dataclass(frozen=True)
class _Dilation:
    """The sizes of both kernels and of the erosion, in pixels."""

    first: int
    second: int
    erosion: int

    @property
    def reach(self) -> int:
        """How far away a pixel can have an influence."""
        return max(self.first // 2 + self.erosion // 2, self.second // 2, 0)

    def check(self, process: str) -> None:
        """Raise `ProcessParameterInvalid` unless all sizes are odd (or 0) and not too large."""
        names = ("kernel1_size", "kernel2_size", "erosion_kernel_size")
        for name, size in zip(names, (self.first, self.second, self.erosion), strict=True):
            if not (0 <= size <= MAX_SIZE) or (size and size % 2 == 0):
                reason = f"{size} is not an odd number from 1 to {MAX_SIZE} (or 0)."
                raise ProcessParameterInvalid(process=process, parameter=name, reason=reason)


def _select_classification(data: xr.DataArray, name: str) -> xr.DataArray:
    """Select the band with the scene classification; its dimension stays."""
    for dimension in cube.dimensions_of_type(data, "bands"):
        positions = find_band_positions(data, dimension, name)
        if len(positions) != 1:
            available = ", ".join(map(str, cube.labels(data, dimension)))
            raise LabelNotAvailable(label=repr(name), available=f"{available} (see scl_band_name)")
        data = data.isel({dimension: positions})
    return data


def _mark_block(
    classes: np.ndarray, dilation: _Dilation, clear: np.ndarray, cloudy: np.ndarray
) -> np.ndarray:
    """Mark pixels of ``(..., y, x)`` extended by the reach of a dilation; infinity stands for no pixel."""
    is_pixel = ~np.isposinf(classes)
    first = is_pixel & ~np.isin(classes, clear)
    if dilation.erosion > 1:
        size = (1,) * (classes.ndim - 2) + (dilation.erosion,) * 2
        # No pixel erodes its neighbours.
        first = is_pixel & scipy.ndimage.minimum_filter(first | ~is_pixel, size, mode="constant", cval=True)
    second = is_pixel & np.isin(classes, cloudy)
    marked = _dilate(first, dilation.first, NEAR) | _dilate(second, dilation.second, FAR)
    rows, columns = (slice(dilation.reach, size - dilation.reach) for size in marked.shape[-2:])
    return marked[..., rows, columns]


def _dilate(marked: np.ndarray, size: int, threshold: float) -> np.ndarray:
    if size <= 1 or not marked.any():
        return marked
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / (size / 6)) ** 2)
    weights /= weights.sum()
    share = marked.astype(np.float64)
    for axis in (-2, -1):
        share = scipy.ndimage.correlate1d(share, weights, axis=axis, mode="constant")
    return share > threshold
