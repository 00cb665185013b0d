"""The tasks that runners carry out for requests: results, estimates, explanations, validation, previews.

Each module has a task, a function whose first argument is the configuration of the service; runners call it
(see `odc_openeo.runners`), views get its value. `lanes` tells which runners there are.
"""

from __future__ import annotations

import odc_openeo.processes  # noqa: F401  (tasks need the processes, which importing registers)
