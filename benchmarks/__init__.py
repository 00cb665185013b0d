"""Benchmarks: each prints a table with ratios measured in the same run. See README.md here."""
