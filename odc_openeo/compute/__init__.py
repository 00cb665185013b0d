"""The dask cluster, and the cache of results."""
