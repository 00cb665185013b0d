"""Guards against untrusted input: addresses, rasters, GDAL drivers, reference systems, JSON."""
