"""Runner processes: they evaluate graphs and parse users' files, which the HTTP process never does.

A `RunnerPool` keeps warm processes. Each carries out one task at a time, a function of this package with its
arguments, within limits of memory and time; one that exceeds them is killed and replaced.
"""

from odc_openeo.runners.pool import Lane, RunAbandoned, RunnerPool, is_always_wanted

__all__ = ["Lane", "RunAbandoned", "RunnerPool", "is_always_wanted"]
