"""Every setting of the service, read from ``ODC_OPENEO_*``; the only module that reads the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ODC_OPENEO_"

FILE_SUFFIX = "_FILE"
"""Ending of the variables that name a file with a secret, such as ``ODC_OPENEO_SECRET_KEY_FILE``."""

MAX_SECRET_BYTES = 64 * 2**10

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of prometheus-client: the folder in which processes share their metrics."""

DEMO_USER = "demo"
"""Name and password of the user that exists only on loopback."""


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/odc-openeo")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "odc-openeo"


AbsolutePath = Annotated[Path, BeforeValidator(lambda value: Path(value).expanduser().absolute())]


class Config(BaseSettings):
    """The settings of one service, immutable; each field is the variable ``ODC_OPENEO_<FIELD>``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", env_file=None
    )

    # --- Locations ---
    data_dir: AbsolutePath = Field(
        default_factory=_default_data_dir,
        description="Folder of everything the service keeps on this machine: the embedded PostgreSQL, "
        "results and files (unless storage_url says otherwise), the signing key.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL server with this service's own tables. Without it `odc-openeo up` starts "
        "a PostgreSQL of its own in data_dir.",
    )
    odc_environment: str | None = Field(
        None,
        description="Name of the Open Data Cube environment to serve (ODC_<NAME>_DB_URL or a section of "
        "datacube.conf). Without it, Open Data Cube's own choice.",
    )
    index_driver: Literal["postgres", "postgis"] = Field(
        "postgres",
        description="Index driver of the Open Data Cube that `odc-openeo up` sets up; postgis needs a "
        "database_url with PostGIS. An Open Data Cube configured by ODC_* variables names its own driver.",
    )
    storage_url: str | None = Field(
        None,
        description="Folder, bucket (s3://bucket/prefix, gs://, az://) or fsspec URL for results and "
        "user files. Default: data_dir/storage.",
    )
    storage_links: Literal["store", "service"] = Field(
        "store",
        description="Where links to results in a bucket lead in the end: to signed URLs of the store, or to "
        "this service, which then sends the files itself.",
    )
    storage_public_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s@?#]+$",
        description="URL of the object store for users, if they reach it at another address than this "
        "service.",
    )
    collection_overrides: AbsolutePath | None = Field(
        None,
        description="YAML file with titles, descriptions, licences … to replace those of ODC products.",
    )

    load_hints: bool = Field(
        True,
        description="Whether data in several reference systems is loaded on the grid that the product names "
        "(`load` in its definition), if it names one, instead of on one of the grids of the files.",
    )

    buckets: AbsolutePath | None = Field(
        None,
        description="YAML file with rules by product and by URI prefix on how objects in buckets are "
        "reached: unsigned, requester_pays, endpoint, region, profile, signing. Without secrets.",
    )

    # --- Files of datasets, for STAC clients ---
    asset_hrefs: str = Field(
        "",
        description="Addresses of files in the index as STAC clients see them: PREFIX=URL, separated by "
        "commas, such as file:///data/=https://data.example.org/; the longest prefix that fits counts.",
    )
    serve_assets: bool | None = Field(
        None,
        description="Whether anyone may download the files of indexed datasets that lie on this machine. "
        "Default: only on a loopback address without trusted_proxies or a public_url of another host.",
    )

    # --- Computing ---
    dask_scheduler: str | None = Field(
        None,
        description="Address of a dask scheduler, such as tcp://scheduler:8786. Without it `odc-openeo up` "
        "starts a local cluster.",
    )
    workers: int = Field(
        2, ge=1, le=1024, description="Worker processes of the local dask cluster of `odc-openeo up`."
    )
    threads_per_worker: int = Field(
        2, ge=1, le=256, description="Threads of each worker of the local dask cluster."
    )
    worker_memory: str = Field(
        "auto",
        description="Memory limit of each local dask worker, such as 4GiB; auto: its share of all.",
    )
    worker_wait_s: float = Field(
        15, gt=0, description="Seconds to wait for a dask worker before a request is refused."
    )
    local_max_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Requests estimated below this many bytes run on threads at once.",
    )

    # --- Runners ---
    runners: int = Field(
        4,
        ge=1,
        le=256,
        description="Most processes that evaluate process graphs of synchronous requests at the same time, "
        "for each HTTP process; half as many plus one make map tiles and previews and validate.",
    )
    runner_memory: ByteSize = Field(
        ByteSize(2 * 2**30),
        ge=128 * 2**20,
        description="Memory that a runner may take for a request, such as 2GiB. Beyond it the request is "
        "refused and the runner replaced.",
    )
    job_memory: ByteSize = Field(
        ByteSize(4 * 2**30),
        ge=128 * 2**20,
        description="Memory that the process of a batch job may take on this machine, such as 4GiB; dask "
        "workers have limits of their own.",
    )
    runs_per_user: int = Field(
        2,
        ge=1,
        description="Synchronous requests of one user that are computed at the same time on this machine, "
        "and as many map tiles of one user's services; others wait.",
    )
    run_wait_s: float = Field(
        10, ge=0, description="Seconds that a request waits for others to finish before it is refused."
    )

    # --- User-defined functions ---
    udf: Literal["off", "auto", "namespaces"] = Field(
        "auto",
        description="Whether code of users runs. auto: in a sandbox of Landlock and seccomp where the kernel "
        "has both, and of namespaces where bubblewrap works; namespaces: only with those, too.",
    )
    udf_scheduler: str | None = Field(
        None,
        description="Address of the dask scheduler of workers that run code of users and nothing else, "
        "such as tcp://udf-scheduler:8786. No process that has this setting runs code of users itself.",
    )
    udf_pythons: str = Field(
        "",
        description="Interpreters that run code of users, separated by commas; the first is the default. "
        "Their environments should not contain this service. Default: the interpreter of this service.",
    )
    udf_memory: ByteSize = Field(
        ByteSize(2 * 2**30),
        ge=64 * 2**20,
        description="Memory that a process of user code may allocate, such as 2GiB.",
    )
    udf_timeout_s: float = Field(300, gt=0, description="Seconds that one call of user code may take.")
    udf_output: ByteSize = Field(
        ByteSize(2**30), ge=2**20, description="Bytes that one call of user code may return."
    )
    udf_disk: ByteSize = Field(
        ByteSize(2**30), ge=2**20, description="Bytes of files that a process of user code may have."
    )
    udf_threads: int = Field(128, ge=1, description="Most threads of a process of user code.")
    udf_install: bool = Field(
        False,
        description="Whether packages that code of users requires (PEP 723) are installed: wheels of the "
        "package index, by pip in the sandbox, into environments that all users share.",
    )
    udf_package_index: SecretStr | None = Field(
        None,
        description="Package index for these: the URL of a simple index, which may lie in the operator's "
        "network, or a folder of wheels. Without it, what pip is configured to use.",
    )
    udf_install_timeout_s: float = Field(
        300, gt=0, description="Seconds that installing the packages of one function may take."
    )
    udf_install_bytes: ByteSize = Field(
        ByteSize(2 * 2**30), ge=2**20, description="Bytes that the packages of one function may take."
    )
    udf_cache_dir: AbsolutePath | None = Field(
        None,
        description="Folder of installed packages and unpacked archives, which user code may read; dask "
        "workers on other machines need it at the same path. Default: below the folder for temporary files.",
    )
    udf_cache_bytes: ByteSize = Field(
        ByteSize(20 * 2**30),
        ge=2**20,
        description="Bytes of installed packages, and as many of unpacked archives, that are kept.",
    )
    udf_cache_user_bytes: ByteSize = Field(
        ByteSize(5 * 2**30),
        ge=2**20,
        description="Of these, the bytes that one user may fill; beyond them the least recently used ones of "
        "that user are removed.",
    )
    udf_cache_user_entries: int = Field(
        50,
        ge=1,
        description="Environments, and as many archives, that one user may have there.",
    )
    udf_hosts: str = Field(
        "",
        description="Hosts that code of users may connect to by TCP, separated by commas, such as "
        "data.example.org or .example.org:8443; without a port 80 and 443. Their addresses must be public or "
        "in outgoing_allow. Default: none.",
    )

    # --- HTTP ---
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=1, le=65535, description="Port to listen on.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="Root URL as clients see it, when a proxy is in front. Default: http://host:port.",
    )
    gunicorn_workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that answer HTTP requests; each has runners of its own (see runners).",
    )
    gunicorn_threads: int = Field(
        48,
        ge=6,
        le=1024,
        description="Threads of each of those processes. Two thirds of them may wait for runners, a third "
        "for those of one user at most; the others are for requests that need none.",
    )
    cors_origins: str = Field("*", description="Origins whose web pages may use the API; * for all.")
    requests_per_minute_user: int = Field(
        6000,
        ge=0,
        description="Requests that a user may make per minute, counted by each HTTP process; 0: no limit.",
    )
    requests_per_minute_address: int = Field(
        6000,
        ge=0,
        description="Requests without a signed-in user from one address within a minute (IPv6: from one "
        "network of 64 bits; this machine: no limit unless a proxy may be in front), counted by each "
        "HTTP process; 0: no limit.",
    )
    max_body_bytes: int = Field(
        8 * 2**20, ge=1024, description="Largest JSON request body; a larger one is refused unread."
    )

    # --- Limits ---
    max_graph_nodes: int = Field(10_000, ge=1, description="Most nodes that a process graph may have.")
    max_graph_depth: int = Field(100, ge=1, le=500, description="Deepest nesting of child process graphs.")
    sync_max_bytes: int = Field(
        4 * 2**30,
        ge=0,
        description="Largest estimated volume, in bytes before reduction, of a synchronous request.",
    )
    sync_max_tasks: int = Field(
        300_000, ge=0, description="Most steps (dask tasks) that a synchronous request may take."
    )
    cache_max_bytes: int = Field(
        2 * 2**30,
        ge=0,
        description="Bytes that results of synchronous requests may take on this machine's disk, to answer "
        "the same request of the same user again; 0 keeps none.",
    )
    sync_timeout_s: float = Field(300, gt=0, description="Seconds until a synchronous request is given up.")

    search_timeout_s: float = Field(20, gt=0, description="Seconds that a search for STAC Items may take.")
    summary_datasets: int = Field(
        50_000,
        ge=1,
        description="Datasets of the index that a request may read to bring extents and counts of "
        "collections up to date; more are read in the background.",
    )

    # --- Reading ---
    gdal_drivers: str = Field(
        "",
        description="GDAL drivers that your own datasets need besides those of self-contained formats, "
        "separated by commas. Drivers that open what a file refers to (VRT, say) let users' files do that.",
    )

    # --- Files of users ---
    max_file_bytes: int = Field(10 * 2**30, ge=1, description="Largest file that a user may upload.")
    user_storage_bytes: int | None = Field(
        50 * 2**30,
        ge=0,
        description="Bytes that the files of one user may take together; exports to workspaces of this "
        "service's storage and to collections may each take as much again.",
    )
    workspace_providers: AbsolutePath | None = Field(
        None,
        description="YAML file of locations for workspaces besides this service's storage; docs/exports.md.",
    )

    quotas: AbsolutePath | None = Field(
        None,
        description="YAML file of quotas by role: CPU hours per month, storage, jobs at the same time; "
        "docs/accounts.md.",
    )

    # --- User-supplied URLs (SSRF protection) ---
    outgoing_allow: str = Field(
        "",
        description="Targets that user-supplied URLs may reach besides public addresses: hosts, domains "
        "(.example.org) and networks (10.0.0.0/8), separated by commas.",
    )
    outgoing_deny: str = Field(
        "", description="Targets that they may never reach, in the same notation; * for all."
    )
    outgoing_max_bytes: int = Field(2 * 2**30, ge=1, description="Largest file that is fetched for a user.")
    outgoing_timeout_s: float = Field(300, gt=0, description="Seconds that fetching it may take.")

    # --- Secondary web services ---
    tile_timeout_s: float = Field(
        60, gt=0, description="Seconds until a map tile, a preview or a validation is given up."
    )
    tile_max_bytes: int = Field(
        512 * 2**20, ge=1, description="Largest volume of pixels, in bytes, that one map tile may read."
    )
    tile_cache_bytes: int = Field(
        128 * 2**20, ge=0, description="Memory of each HTTP process for cached map tiles; 0 for none."
    )

    # --- Batch jobs ---
    jobs: Literal["queue", "prefect"] = Field(
        "queue",
        description="Who runs the parts of large batch jobs: the job workers, or flow runs of the Prefect "
        "server that PREFECT_API_URL names (docs/parts.md).",
    )
    prefect_pool: str = Field(
        "odc-openeo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$",
        description="Work pool of Prefect that runs them, for this service only.",
    )
    prefect_parts: int = Field(
        2, ge=1, le=64, description="Parts of one batch job that a flow run computes at the same time."
    )
    job_workers: int = Field(
        2, ge=0, le=256, description="Batch job workers of `odc-openeo up`: jobs that run at the same time."
    )
    jobs_per_user: int = Field(
        4, ge=1, description="Most batch jobs of one user that run at the same time; the others wait."
    )
    job_tries: int = Field(
        3, ge=1, le=100, description="Times a batch job is begun when workers or the cluster are lost."
    )
    part_tasks: int = Field(
        50_000,
        ge=100,
        description="Most tasks of one dask graph: batch jobs that take more are split into parts where they "
        "can be.",
    )
    part_bytes: ByteSize = Field(
        ByteSize(64 * 2**30), description="Most bytes, in memory, that one part of a batch job reads."
    )
    part_repeats: float = Field(
        4,
        ge=1,
        description="Times that all parts of a batch job together may read its data: where they would need "
        "more, as parts are small or need much around them, the job is not split.",
    )
    most_parts: int = Field(10_000, ge=1, description="Most parts of one batch job.")
    job_lost_after_s: float = Field(
        120,
        ge=1,
        description="Seconds without a sign of life after which a job's worker is given up. One that has "
        "ended is noticed within ten seconds.",
    )
    result_lifetime_days: float = Field(
        90, gt=0, description="Days until the results of a finished batch job are deleted."
    )
    link_lifetime_hours: float = Field(
        24, gt=0, le=24 * 365, description="Hours that signed links to results are valid, at least."
    )

    # --- Accounts ---
    secret_key: SecretStr | None = Field(
        None,
        description="Key that signs URLs; the same on all hosts. Default: made once, kept in data_dir.",
    )
    oidc_providers: AbsolutePath | None = Field(
        None,
        description="YAML file of the OpenID Connect providers whose users may sign in; docs/accounts.md.",
    )
    basic_login: bool = Field(True, description="Whether users with a password kept here may sign in.")
    login_attempts: int = Field(
        5,
        ge=1,
        description="Wrong passwords for a user from one address until no more are accepted; ten times as "
        "many for a user from all addresses, or from an address for all users.",
    )
    login_wait_s: float = Field(300, gt=0, description="Seconds from the first of them until that ends.")
    trusted_proxies: int = Field(
        0,
        ge=0,
        description="Proxies in front of the service that append to X-Forwarded-For, to tell clients apart.",
    )
    token_lifetime_hours: float = Field(24, gt=0, description="Hours until a Basic login's token expires.")
    demo_user: bool | None = Field(
        None,
        description="A user `demo` with password `demo`; only possible on a loopback address without "
        "trusted_proxies and without a public_url of another host. Default: made by `odc-openeo up` there, "
        "not by `odc-openeo serve`.",
    )

    # --- Appearance ---
    title: str = Field("Open Data Cube openEO", description="Name of the service in clients.")
    description: str = Field(
        "openEO on an Open Data Cube index: process graphs run on the data cubes indexed here.",
        description="Description of the service (CommonMark).",
    )
    web_editor_url: str | None = Field(
        "https://editor.openeo.org", description="openEO Web Editor that the start page links to."
    )
    web_editor_dir: AbsolutePath | None = Field(
        None,
        description="Folder with a built openEO Web Editor, to be served at /editor; the start page links to "
        "that then.",
    )
    collection_previews: bool = Field(
        True, description="Whether the pages of collections show a small picture of a scene to everybody."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe messages that are logged."
    )

    log_format: Literal["text", "json"] = Field(
        "text", description="Lines of text, or a JSON object per line with ids of request, job and user."
    )
    audit_log: AbsolutePath | None = Field(
        None,
        description="File to which events of the audit log are appended as JSON, one per line. Default: they "
        "are in the log of the service; docs/monitoring.md.",
    )

    # --- Monitoring ---
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of a listener of its own for /metrics, for Prometheus. Without it and without "
        "metrics_token there are no metrics; docs/monitoring.md.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address that this listener listens on.")
    metrics_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Token with which /metrics is served on the main port, too, as a Bearer token.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: Any) -> Any:
        """Take secrets that are not set themselves from the files that ``ODC_OPENEO_<FIELD>_FILE`` name."""
        contents = {}
        for name in list_secrets():
            variable = f"{PREFIX}{name.upper()}{FILE_SUFFIX}"
            if values.get(name) is None and os.environ.get(variable):
                contents[name] = _read_secret_file(variable, Path(os.environ[variable]))
        return {**values, **contents}

    @model_validator(mode="after")
    def _demo_only_on_loopback(self) -> Config:
        if self.demo_user and not self.is_local_only:
            raise ValueError(
                f"the user demo with password demo is possible only on a loopback address without proxies, "
                f"and {self.reason_for_access}: unset {PREFIX}DEMO_USER and make users with "
                "`odc-openeo user add`"
            )
        return self

    @field_validator("asset_hrefs")
    @classmethod
    def _asset_hrefs_are_pairs(cls, value: str) -> str:
        for pair in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"[a-z][\w+.-]*://[^=]*=[a-z][\w+.-]*://\S+", pair):
                raise ValueError(
                    f"'{pair}' is not PREFIX=URL, such as file:///data/=https://data.example.org/"
                )
        return value

    @field_validator("udf_hosts")
    @classmethod
    def _udf_hosts_are_names(cls, value: str) -> str:
        for entry in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[1-9]\d{0,4})?", entry):
                raise ValueError(f"'{entry}' is not a host such as data.example.org or .example.org:8443")
        return value

    @property
    def asset_prefixes(self) -> list[tuple[str, str]]:
        """Prefixes of addresses in the index and what clients see instead, the longest first."""
        pairs = [pair.strip().partition("=") for pair in self.asset_hrefs.split(",") if pair.strip()]
        return sorted(((old, new) for old, _, new in pairs), key=lambda p: -len(p[0]))

    @property
    def serves_assets(self) -> bool:
        """Whether files of datasets on this machine can be downloaded."""
        if self.serve_assets is not None:
            return self.serve_assets
        return self.is_local_only

    @property
    def is_local_only(self) -> bool:
        """Whether the settings say that only this machine can reach the service."""
        return self.reason_for_access is None

    @property
    def reason_for_access(self) -> str | None:
        """Which setting says that others can reach the service; None if none does."""
        if not self.on_loopback:
            return f"host is {self.host}"
        if self.trusted_proxies:
            return f"trusted_proxies is {self.trusted_proxies}"
        if self.public_url is not None and not is_loopback(urlsplit(self.public_url).hostname or ""):
            return f"public_url is {self.public_url}"
        return None

    @property
    def on_loopback(self) -> bool:
        """Whether the service listens on a loopback address."""
        return is_loopback(self.host)

    @property
    def root_url(self) -> str:
        """Root URL as clients see it, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host.strip("[]") else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    def own_path(self, url: str) -> str | None:
        """The path below the root URL if this is a URL of this service itself, else None."""
        try:
            parts, root = urlsplit(url), urlsplit(self.root_url)
            same = _origin_of(parts) == _origin_of(root)
        except ValueError:
            return None
        below = parts.path.startswith(f"{root.path}/")
        return parts.path.removeprefix(root.path) if same and below else None

    @property
    def has_metrics(self) -> bool:
        """Whether a setting asks for metrics."""
        return self.metrics_port is not None or self.metrics_token is not None

    @property
    def storage(self) -> str:
        """Folder or fsspec URL for results and user files."""
        return self.storage_url or str(self.data_dir / "storage")

    def signing_key(self) -> bytes:
        """The key that signs URLs: ``secret_key``, else one kept in ``data_dir``, made at the first call."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value().encode()
        path = self.data_dir / "secret_key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return _make_key(path)

    def environment(self) -> dict[str, str]:
        """The settings that are not at their defaults as variables, secrets included: for child processes."""
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        return {
            PREFIX + name.upper(): _to_string(value) for name, value in values.items() if value is not None
        }


def list_secrets() -> list[str]:
    """Return the names of the settings that are secrets; a file may have each of them."""
    return [name for name, field in Config.model_fields.items() if "SecretStr" in str(field.annotation)]


def _read_secret_file(variable: str, path: Path) -> str:
    """Return what the file has, without white space around it.

    Raises:
        ValueError: it cannot be read, is not a regular file, or has no line of text.
    """
    try:
        if not path.is_file():
            raise ValueError(f"{variable}: {path} is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{variable}: {path} cannot be read: {error.strerror}") from None
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret.isprintable() or not secret or len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"{variable}: {path} should have the secret as its only line of text")
    return secret


def is_loopback(host: str) -> bool:
    """Whether a host name or address, with brackets or without, is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _origin_of(url: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; the names of this machine are the same."""
    host = "localhost" if url.hostname in ("127.0.0.1", "::1") else url.hostname
    return url.scheme, host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _make_key(path: Path) -> bytes:
    # Several processes may start at once: the first to link its file wins, all read the same key.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".secret_key.{os.getpid()}.{secrets.token_hex(4)}")
    temporary.touch(mode=0o600)
    temporary.write_bytes(secrets.token_urlsafe(48).encode())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes()


def _to_string(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def child_environment(config: Config | None = None, **extra: str) -> dict[str, str]:
    """For a child process: this one's environment, ``config`` written into it, ``extra`` on top."""
    settings = config.environment() if config is not None else {}
    return {**os.environ, **settings, **extra}


def replace_environment(environment: Mapping[str, str]) -> None:
    """Give this process another environment."""
    os.environ.clear()
    os.environ.update(environment)


def apply_environment(variables: Mapping[str, str]) -> None:
    """Set variables in the environment of this process."""
    os.environ.update(variables)


def use_odc_database(url: str) -> None:
    """Let this process's Open Data Cube use the PostgreSQL at ``url``, through the ``postgres`` driver."""
    os.environ.update(odc_database_environment(url))


def odc_database_environment(url: str, driver: str = "postgres") -> dict[str, str]:
    """The variables that make the PostgreSQL at ``url`` Open Data Cube's default environment."""
    return {
        "ODC_ENVIRONMENT": "default",
        "ODC_DEFAULT_DB_URL": url,
        "ODC_DEFAULT_INDEX_DRIVER": driver,
    }


def read_variable(name: str) -> str | None:
    """Read a variable of the environment that is not a setting of this service; None if unset or empty."""
    return os.environ.get(name) or None


def find_udf_mode() -> str:
    """Return the setting ``udf`` of this process, for dask workers, which have no other settings."""
    return os.environ.get(f"{PREFIX}UDF") or "auto"


def has_udf_scheduler() -> bool:
    """Return whether this process has the setting ``udf_scheduler``: code of users runs elsewhere."""
    return bool(os.environ.get(f"{PREFIX}UDF_SCHEDULER"))


def find_metrics_folder() -> Path | None:
    """Return the folder in which this process shares its metrics with others, None if it has none."""
    folder = os.environ.get(METRICS_FOLDER)
    return Path(folder) if folder else None


def allowed_gdal_drivers() -> tuple[str, ...]:
    """The names in the setting ``gdal_drivers``, for processes that have no other settings."""
    names = os.environ.get(f"{PREFIX}GDAL_DRIVERS", "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def odc_variables() -> dict[str, str]:
    """Open Data Cube's own variables that are set here, some with passwords."""
    names = sorted(name for name in os.environ if name.startswith("ODC_") and not name.startswith(PREFIX))
    return {name: os.environ[name] for name in names}


def odc_settings() -> dict[str, str]:
    """Open Data Cube's own variables that are set here, passwords masked."""
    return {name: _mask_if_secret(name, value) for name, value in odc_variables().items()}


def unknown_variables() -> list[str]:
    """Variables that look like settings of this service but are not; most often typing errors."""
    settings = {PREFIX + name.upper() for name in Config.model_fields}
    settings |= {PREFIX + name.upper() + FILE_SUFFIX for name in list_secrets()}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in settings)


def describe_settings(config: Config) -> list[tuple[str, str, str, str]]:
    """(variable, value, default, description) of every setting; secrets and passwords are masked."""
    return [
        (
            PREFIX + name.upper(),
            _display_value(name, getattr(config, name)),
            _default_value(field),
            describe_field(name, field),
        )
        for name, field in Config.model_fields.items()
    ]


def describe_field(name: str, field: FieldInfo) -> str:
    """Return what a setting is for, and the variable of its file if it is a secret."""
    from_file = f" May be in a file that {PREFIX}{name.upper()}{FILE_SUFFIX} names."
    return (field.description or "") + (from_file if name in list_secrets() else "")


def _default_value(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None else str(value)


def _display_value(name: str, value: Any) -> str:
    if value is None:
        return ""
    return _mask_if_secret(name, _to_string(value))


def _mask_if_secret(name: str, value: str) -> str:
    if name.upper().endswith(("SECRET_KEY", "PASSWORD", "TOKEN")):
        return "***"
    return mask_password(value)


def mask_password(text: str) -> str:
    """``text`` with the passwords of URLs, and of query parameters that hold secrets, replaced by stars."""
    text = re.sub(r"(\w[\w+.-]*://[^/\s:@]*):[^\s]*@", r"\1:***@", text)
    return re.sub(r"((?:password|secret|token|key)[\w-]*=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)
