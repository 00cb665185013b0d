"""Runner processes evaluate process graphs and parse files of users, which the HTTP process never does.

A `RunnerPool` keeps warm processes. Each carries out one task at a time: a function of this package with its
arguments, within limits of memory and time. A runner that exceeds them is killed and replaced.
"""

from odc_openeo.runners.pool import Lane, RunAbandoned, RunnerPool, is_always_wanted

__all__ = ["Lane", "RunAbandoned", "RunnerPool", "is_always_wanted"]
