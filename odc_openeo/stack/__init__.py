"""The parts of a running service: PostgreSQL, gunicorn, dask and workers, started and supervised."""
