"""`odc-openeo worker`: claims batch jobs one after the other and runs each in a process of its own.

`supervisor` talks to the queue, `run` is what happens in the process of a job, `describe` tells what it made,
`cleaning` removes what nobody needs any more. Any number of workers may run, on any number of hosts.
"""

from odc_openeo.worker.supervisor import work

__all__ = ["work"]
