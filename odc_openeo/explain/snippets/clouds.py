"""Masks of clouds."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import ndimage

if TYPE_CHECKING:
    # Programs import it; here its libraries, which are large, would be loaded into every process.
    from s2cloudless import S2PixelCloudDetector

NEAR = 0.057
FAR = 0.025


def dilate(marked, size, threshold):
    """Mark pixels near marked ones: where their share, weighted by a Gaussian, is above a threshold."""
    if size <= 1:
        return marked
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / (size / 6)) ** 2)
    share = marked.astype(float)
    for axis in (-2, -1):
        share = ndimage.correlate1d(share, weights / weights.sum(), axis=axis, mode="constant")
    return share > threshold


def mark_clouds(classes, erosion, clear, cloudy, near, far):
    """Mark clouds of a scene classification, and what is near them."""

    def mark(values):
        first = ~np.isin(values, clear)
        if erosion > 1:
            size = (1,) * (values.ndim - 2) + (erosion, erosion)
            first = ndimage.minimum_filter(first, size, mode="constant", cval=True)
        second = np.isin(values, cloudy)
        return dilate(first, near, NEAR) | dilate(second, far, FAR)

    return xr.apply_ufunc(mark, classes.transpose(..., "y", "x")).transpose(*classes.dims)


def find_cloud_probabilities(data, dimension):
    """The probability of a cloud in each pixel, by s2cloudless; NaN where a band is missing."""
    detector = S2PixelCloudDetector(average_over=None, dilation_size=None)

    def detect(values):
        pixels = values.reshape(-1, values.shape[-1])
        complete = np.isfinite(pixels).all(axis=1)
        result = np.full(len(pixels), np.nan)
        if complete.any():
            image = pixels[complete].astype(float)[None, None]
            result[complete] = detector.get_cloud_probability_maps(image)[0, 0]
        return result.reshape(*values.shape[:-1], 1)

    probabilities = xr.apply_ufunc(
        detect, data, input_core_dims=[[dimension]], output_core_dims=[["cloud"]]
    ).rename(cloud=dimension)
    return probabilities.assign_coords({dimension: ["cloud"]}).transpose(*data.dims)
