"""User-defined functions: code of users that runs in processes of its own, each in a sandbox.

`calls.call_udf` is the entrance. The files in `child` are those that the process of user code consists of.
"""
