"""The command that starts gunicorn with our worker and limits."""

from __future__ import annotations

import sys

from odc_openeo.config import Config

LONGEST_HEADER = 2**16 + 2**10


def gunicorn_command(config: Config) -> list[str]:
    """Build the command that runs the app in gunicorn, without preloading: connections must not be forked."""
    host = f"[{config.host}]" if ":" in config.host.strip("[]") else config.host
    size = ["--workers", str(config.gunicorn_workers), "--threads", str(config.gunicorn_threads)]
    limits = [
        "--timeout",
        str(int(config.sync_timeout_s) + 30),
        "--graceful-timeout",
        "3",
        "--keep-alive",
        "5",
    ]
    # Tokens of identity providers can exceed gunicorn's default limit on the size of a header.
    heads = ["--limit-request-line", "8190", "--limit-request-field_size", str(LONGEST_HEADER)]
    worker = ["--worker-class", "odc_openeo.stack.gunicorn_worker.Worker"]
    options = [*worker, *heads, "--no-control-socket", "--log-level", config.log_level]
    if config.log_format == "json":
        options += ["--logger-class", "odc_openeo.stack.gunicorn_log.JsonLogger"]
    command = [sys.executable, "-m", "gunicorn", "odc_openeo.app:create_app()"]
    return [*command, "--bind", f"{host}:{config.port}", *size, *limits, *options]
