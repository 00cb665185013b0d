"""The process of user code: these files run in an interpreter of its own, without the rest of this package.

They import only the standard library and numpy until the sandbox is closed.
"""
