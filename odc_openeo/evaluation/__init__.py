"""What runners do for requests: synchronous results, estimates, validation, previews.

Each module has a task, a function whose first argument is the configuration of the service; runners call it
(see `odc_openeo.runners`), views get its value. `lanes` tells which runners there are.
"""
