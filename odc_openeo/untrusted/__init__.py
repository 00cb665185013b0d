"""Guards against untrusted input: rasters, GDAL drivers, reference systems, JSON."""
