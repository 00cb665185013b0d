"""Metrics for Prometheus: what is counted in processes, and the state of jobs, cluster and parts."""
