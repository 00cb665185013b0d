"""`odc-openeo worker`: claims batch jobs one after the other and runs each in its own process.

`supervisor` talks to the queue, `run` is the code in the process of a job, `provenance` describes its files,
`exporting` carries out its exports, `cleaning` removes files that are no longer needed. Any number of workers
may run, on any number of hosts.
"""

from odc_openeo.worker.supervisor import run_worker

__all__ = ["run_worker"]
