"""Names of variables: those that users gave their nodes, else nouns for what processes return."""

from __future__ import annotations

import re
from typing import Final

from odc_openeo.explain.code import make_name
from odc_openeo.graph import Node

NOUNS: Final = {
    "load_collection": "data",
    "load_stac": "data",
    "load_uploaded_files": "data",
    "load_url": "data",
    "load_geojson": "features",
    "apply": "applied",
    "apply_dimension": "applied",
    "apply_kernel": "filtered",
    "apply_neighborhood": "applied",
    "apply_polygon": "applied",
    "array_create": "values",
    "array_create_labeled": "values",
    "reduce_dimension": "reduced",
    "reduce_spatial": "reduced",
    "aggregate_spatial": "zonal",
    "aggregate_temporal": "periods",
    "aggregate_temporal_period": "periods",
    "aggregate_spatial_window": "coarse",
    "climatological_normal": "normals",
    "filter_bands": "selected",
    "filter_bbox": "cropped",
    "filter_spatial": "cropped",
    "filter_temporal": "selected",
    "filter_labels": "selected",
    "filter_vector": "selected",
    "mask": "masked",
    "mask_polygon": "masked",
    "merge_cubes": "merged",
    "resample_spatial": "resampled",
    "resample_cube_spatial": "resampled",
    "resample_cube_temporal": "resampled",
    "rename_dimension": "renamed",
    "rename_labels": "renamed",
    "add_dimension": "extended",
    "drop_dimension": "squeezed",
    "save_result": "saved",
    "vector_buffer": "buffered",
    "vector_reproject": "reprojected",
    "vector_to_raster": "raster",
    "raster_to_vector": "polygons",
    "fit_class_random_forest": "model",
    "fit_regr_random_forest": "model",
    "gt": "is_greater",
    "lt": "is_less",
    "gte": "is_at_least",
    "lte": "is_at_most",
    "eq": "is_equal",
    "neq": "is_different",
    "if": "chosen",
    "not": "inverted",
    "and": "both",
    "or": "either",
    "pi": "pi_value",
}


def choose_name(node: Node) -> str:
    """The name that a person would give the value of a node."""
    label = node.arguments.get("label") if node.process_id == "array_element" else None
    if isinstance(label, str) and make_name(label):
        return make_name(label)
    given = make_name(node.id)
    bare = node.process_id.replace("_", "")
    if given and not re.fullmatch(
        rf"({re.escape(bare)}|{re.escape(node.process_id)})_?\d*|n?\d+|it|\w", given
    ):
        return given
    return NOUNS.get(node.process_id, node.process_id)
