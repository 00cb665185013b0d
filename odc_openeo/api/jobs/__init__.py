"""Batch jobs and their results over HTTP."""
