"""`odc-openeo worker`: claims batch jobs one after the other and runs each in its own process.

`executors` has the loop of a worker. `supervisor` talks to the queue, `run` is the code in the process of a
job, `provenance` describes its files, `exporting` carries out its exports, `cleaning` removes files that are
no longer needed. `planning` finds out whether a job runs in parts; `part_supervisor`, `part_run`,
`part_layouts` and `part_results` are for those, `prefect_executor` and
`prefect_flow` for parts that Prefect runs. Any number of workers may run, on any number of hosts.
"""

from odc_openeo.worker.executors import ExecutorUnavailable, make_executor, run_worker

__all__ = ["ExecutorUnavailable", "make_executor", "run_worker"]
