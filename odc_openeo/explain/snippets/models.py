"""Models of scikit-learn and scipy on cubes."""

import numpy as np
import scipy
import xarray as xr


def fit_rows(model, predictors, targets):
    """Fit a model to the rows of a cube, one per geometry, that are complete."""
    rows = predictors.values.reshape(len(predictors), -1).astype(float)
    complete = np.isfinite(rows).all(axis=1) & np.isfinite(targets)
    return model.fit(rows[complete], np.asarray(targets)[complete])


def predict_along(model, data, dimension):
    """The predictions of a model for the values along a dimension; NaN where one is missing."""

    def predict(values):
        rows = values.reshape(-1, values.shape[-1]).astype(float)
        complete = np.isfinite(rows).all(axis=1)
        result = np.full(len(rows), np.nan)
        if complete.any():
            result[complete] = model.predict(rows[complete])
        return result.reshape(values.shape[:-1])

    return xr.apply_ufunc(predict, data, input_core_dims=[[dimension]])


def as_numbers(labels):
    """Labels as numbers: those of dates are seconds since 1970."""
    labels = np.asarray(labels)
    if labels.dtype.kind == "U":
        labels = labels.astype("datetime64[ns]")
    if labels.dtype.kind == "M":
        return (labels - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return labels.astype(float)


def fit_curve(model, labels, values, start, ignore_nodata=True):
    """The parameters with which a model is nearest to values, by least squares."""
    x, y = as_numbers(labels), np.array([np.nan if v is None else v for v in values], dtype=float)
    used = np.isfinite(y) if ignore_nodata else np.ones(y.shape, dtype=bool)
    if used.sum() < len(start) or not np.isfinite(y[used]).all():
        return np.full(len(start), np.nan)

    def find_error(parameters):
        predicted = model(xr.DataArray(x[used], dims="x"), xr.DataArray(parameters, dims="element"))
        return np.broadcast_to(getattr(predicted, "values", predicted), used.sum()) - y[used]

    options = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    return scipy.optimize.least_squares(
        find_error, np.asarray(start, dtype=float), method="lm", x_scale="jac", **options
    ).x


def fit_along(model, data, dimension, start, target, ignore_nodata=True):
    """The parameters of a model for the values along a dimension of each pixel."""
    labels = data[dimension].values

    def fit(values):
        return fit_curve(model, labels, values, start, ignore_nodata)

    fitted = xr.apply_ufunc(
        fit, data.astype(float), input_core_dims=[[dimension]], output_core_dims=[[target]], vectorize=True
    )
    order = [target if name == dimension else name for name in data.dims]
    return fitted.transpose(*order).assign_coords({target: range(len(start))})


def predict_at(model, parameters, source, dimension, labels):
    """The values of a model at labels of a dimension."""
    x = xr.DataArray(as_numbers(labels), dims="label")
    bare = parameters.drop_vars(source, errors="ignore")
    predicted = model(x, bare) * xr.ones_like(x)
    order = ["label" if name == source else name for name in parameters.dims]
    return predicted.transpose(*order).rename(label=dimension).assign_coords({dimension: labels})
