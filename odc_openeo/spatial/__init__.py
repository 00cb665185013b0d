"""Grids, boxes and geometries: warping, aligning, rasterizing, masking."""
