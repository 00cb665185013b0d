"""Counts of what happens and fields of log records, from any room; `monitoring` publishes the counts."""
