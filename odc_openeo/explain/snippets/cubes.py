"""Operations on cubes for which xarray has no method."""

import numpy as np
import xarray as xr


def first_along(data, dimension):
    """The first value along a dimension that is not NaN."""
    position = data.notnull().argmax(dimension)
    return data.drop_vars(dimension, errors="ignore").isel({dimension: position})


def last_along(data, dimension):
    """The last value along a dimension that is not NaN."""
    return first_along(data.isel({dimension: slice(None, None, -1)}), dimension)


def first_position(matches, dimension):
    """The position of the first true value along a dimension; NaN if there is none."""
    return matches.argmax(dimension).where(matches.any(dimension))


def last_position(matches, dimension):
    """The position of the last true value along a dimension; NaN if there is none."""
    backwards = matches.isel({dimension: slice(None, None, -1)})
    return matches.sizes[dimension] - 1 - first_position(backwards, dimension)


def accumulate_along(ufunc, data, dimension):
    """Running results of a function of numpy along a dimension."""
    return xr.apply_ufunc(
        lambda block: ufunc.accumulate(block, axis=-1),
        data,
        input_core_dims=[[dimension]],
        output_core_dims=[[dimension]],
    )


def order_along(data, dimension, asc=True, nodata=None):
    """The positions of values in sorted order; those of NaN at the end, at the start, or NaN."""
    values = data.transpose(..., dimension).values.astype(float)
    order = np.argsort(values if asc else -values, axis=-1, kind="stable")
    missing = np.isnan(values).sum(axis=-1, keepdims=True)
    place, length = np.arange(values.shape[-1]), values.shape[-1]
    if nodata is False:
        order = np.take_along_axis(order, (place - missing) % max(length, 1), -1)
    elif nodata is None:
        order = np.where(place >= length - missing, np.nan, order)
    return data.transpose(..., dimension).copy(data=order).transpose(*data.dims)


def sort_along(data, dimension, asc=True, nodata=None):
    """Values in sorted order along a dimension; NaN at the end, or at the start."""
    order = order_along(data, dimension, asc, nodata is not False)
    return take_along(data, order, dimension)


def take_along(data, order, dimension):
    """The values at positions that differ from pixel to pixel; NaN where there is none."""
    data, order = xr.broadcast(data, order, exclude=[dimension])
    values = data.transpose(..., dimension).values
    positions = order.transpose(..., dimension).values
    valid = (positions >= 0) & (positions < values.shape[-1])
    taken = np.take_along_axis(values, np.where(valid, positions, 0).astype(int), -1)
    return order.transpose(..., dimension).copy(data=np.where(valid, taken, np.nan)).transpose(*order.dims)


def mark_labels(data, labels):
    """Where a cube has pixels among the labels of a larger one."""
    marks = [
        xr.DataArray(np.isin(values, data[name].values), dims=name, coords={name: values})
        for name, values in ((name, np.asarray(values)) for name, values in labels.items())
    ]
    result = marks[0]
    for mark in marks[1:]:
        result = result & mark
    return result


def mask_nodata(dataset):
    """The variables of a Dataset as floats, with NaN where they have their no-data values."""
    bands = {}
    for name, band in dataset.data_vars.items():
        nodata = band.attrs.get("nodata")
        bands[name] = band.astype(float) if nodata is None else band.where(band != nodata)
    return dataset.assign(bands)
