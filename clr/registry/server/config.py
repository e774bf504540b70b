"""Where the registry server keeps its things, and the environment that its processes get."""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clr.core.files import write_atomic
from clr.errors import UsageError
from clr.registry.acts import RELEASE_USER
from clr.registry.faults import redact

if TYPE_CHECKING:
    from clr.settings import Settings

APP = "clr"
"""Name of our app among the entry points ``mlflow.app``."""

AUTH_TEMPLATE = """\
# Who may sign in to the registry server. MLflow reads this; see docs/registry.md.
# The server's own copy, with the address of the database of users, is CLR_HOME/server/auth.ini.
[mlflow]
# What a signed-in user may do as far as MLflow itself is concerned. Every change is decided
# by policy.yaml, which denies whatever it does not name; so this stays at MANAGE.
default_permission = MANAGE

# A password that was right is taken for right so long without computing its hash again.
# What `clr users` changes counts within a second all the same.
auth_cache_ttl_seconds = 300
"""

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")

_LEFT_OUT = (
    # the users' own: a server is none of them
    "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME", "CLR_PASSWORD",
    # what `clr up registry` decides by itself, or what would serve something else
    "MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_ONLY", "MLFLOW_STATIC_PREFIX",
    "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_SERVE_ARTIFACTS", "MLFLOW_HOST", "MLFLOW_PORT",
    "MLFLOW_WORKERS", "MLFLOW_GUNICORN_OPTS", "MLFLOW_UVICORN_OPTS", "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_WORKSPACE_STORE_URI", "MLFLOW_AUTH_ADMIN_PASSWORD",
    # secrets that one process gets by name
    "CLR_RELEASE_PASSWORD", "CLR_TRAINER_PASSWORD", "CLR_SERVER_PASSWORD",
    "CLR_WEBHOOK_SECRET", "CLR_SERVE_METRICS_KEY",
    "CLR_PREFECT_DATABASE", "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
)  # fmt: skip


def server_folder(state: Path) -> Path:
    """Return the folder of what the server needs while it runs, under ``CLR_HOME``."""
    return state / "server"


def artifacts_folder(state: Path) -> Path:
    """Return the folder of the files that the registry holds."""
    return state / "artifacts"


def artifacts_url(settings: Settings) -> str:
    """Return where the server keeps its files: ``CLR_REGISTRY_ARTIFACTS``, or its folder.

    Raises:
        UsageError: the setting is not of the form s3://bucket/path.
    """
    url = settings.registry_artifacts.rstrip("/")
    if not url:
        return artifacts_folder(settings.state).as_uri()
    if not _BUCKET.fullmatch(url):
        raise UsageError(
            f"CLR_REGISTRY_ARTIFACTS is not a place in S3: {url[:200]!r}.",
            fix="Write s3://bucket/path, or unset it for a folder under CLR_HOME.",
        )
    return url


def auth_path(workspace: Path) -> Path:
    """Return where a workspace says how people sign in."""
    return workspace / "mlflow" / "auth.ini"


def database_url(settings: Settings) -> str:
    """Return the database of the registry, for SQLAlchemy.

    Raises:
        UsageError: ``CLR_REGISTRY_DATABASE`` is not PostgreSQL, or ``CLR_HOME`` cannot be
            written in an address.
    """
    return _postgresql(settings) or _sqlite(settings.state / "mlflow.db")


def users_url(settings: Settings) -> str:
    """Return the database of users and password hashes; with PostgreSQL it is the same one.

    Raises:
        UsageError: see `database_url`.
    """
    return _postgresql(settings) or _sqlite(settings.state / "auth.db")


def _postgresql(settings: Settings) -> str:
    url = settings.registry_database
    scheme = url.partition("://")[0].partition("+")[0]
    if url and (scheme != "postgresql" or "://" not in url):
        raise UsageError(
            f"CLR_REGISTRY_DATABASE is not the address of a PostgreSQL database: {redact(url)!r}.",
            fix="Write postgresql://user:password@host:port/name, or unset it for SQLite.",
        )
    return url


def _sqlite(file: Path) -> str:
    if any(sign in str(file) for sign in "?#%"):
        raise UsageError(
            f"CLR_HOME must not contain ?, # or %: {file.parent}.",
            fix="Set CLR_HOME to another folder.",
        )
    return f"sqlite:///{file}"


def reachable_url(host: str, port: int) -> str:
    """Return the address at which this machine reaches a server that listens on `host`."""
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return (
        f"http://[{local}]:{port}"
        if local.count(":") > 1 and local[0] != "["
        else (f"http://{local}:{port}")
    )


def write_auth(settings: Settings) -> Path:
    """Write the server's own ``auth.ini``: the workspace's, and where the users are.

    Returns:
        its path; the address of the database in it may hold a password, so mode 0600.

    Raises:
        UsageError: the workspace's is no such file, or holds what must not be there.
        OSError: it cannot be written.
    """
    source = auth_path(settings.workspace)
    parser = _read_auth(source)
    section = parser["mlflow"]
    for name in ("admin_password", "admin_username", "authorization_function"):
        if name in section:
            raise UsageError(
                f"{source} has {name}, which is not for this file: it belongs into git, the user "
                "is always admin, and people sign in with a password.",
                fix="Take the line out. The password comes from MLFLOW_AUTH_ADMIN_PASSWORD or "
                "from the file that `clr up registry` names.",
            )
    section["database_uri"] = users_url(settings).replace("%", "%%")  # the reader interpolates
    out = io.StringIO()
    parser.write(out)
    path = server_folder(settings.state) / "auth.ini"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, out.getvalue().encode(), 0o600)
    return path


def _read_auth(source: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        text = source.read_text(encoding="utf-8") if source.exists() else AUTH_TEMPLATE
        parser.read_string(text, str(source))
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{source} cannot be read: {' '.join(str(error).split())}.",
            fix="Correct it, or remove it: without it the defaults hold.",
        ) from error
    if "mlflow" not in parser:
        raise UsageError(f"{source} has no section [mlflow].", fix="Add the line [mlflow].")
    return parser


def common_environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """Return what both processes get: `given`, the caller's environment, without secrets."""
    kept = {
        name: value
        for name, value in given.items()
        if name not in _LEFT_OUT and not name.startswith("_MLFLOW_")
    }
    return {
        **kept,
        "CLR_WORKSPACE": str(settings.workspace),
        "CLR_HOME": str(settings.state),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # the server's messages to the release service are for no proxy
        "NO_PROXY": _no_proxy(given),
        "no_proxy": _no_proxy(given),
        "PYTHONSAFEPATH": "1",  # a file of the workspace is no module of the server
        "PYTHONUNBUFFERED": "1",
    }


def _no_proxy(given: Mapping[str, str]) -> str:
    before = given.get("no_proxy") or given.get("NO_PROXY") or ""
    return ",".join(dict.fromkeys([*filter(None, before.split(",")), "127.0.0.1", "localhost"]))


def server_environment(
    settings: Settings, given: Mapping[str, str], flask_key: str, webhook_key: str
) -> dict[str, str]:
    """Return the environment of the MLflow server."""
    common = common_environment(settings, given)
    common.pop("PREFECT_API_AUTH_STRING", None)
    return {
        **common,
        **_allowed_hosts(given),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_CONFIG_PATH": str(server_folder(settings.state) / "auth.ini"),
        # here and not on the command line, where every user of the machine could read it
        "MLFLOW_BACKEND_STORE_URI": database_url(settings),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": flask_key,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here needs
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",  # the release service is on this machine
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_key,
    }


def _allowed_hosts(given: Mapping[str, str]) -> dict[str, str]:
    """Let the release service through, too, where the operator lists the server's names."""
    name = "MLFLOW_SERVER_ALLOWED_HOSTS"
    if not given.get(name):
        return {}
    local = ("127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[[]::1]:*")
    return {name: ",".join((given[name], *local))}


def service_environment(
    settings: Settings, given: Mapping[str, str], url: str, password: str, webhook_secret: str
) -> dict[str, str]:
    """Return the environment of the release service, which acts as the user ``clr-release``."""
    return {
        **common_environment(settings, given),
        "CLR_REGISTRY_URL": url,
        "CLR_WEBHOOK_SECRET": webhook_secret,
        "MLFLOW_TRACKING_USERNAME": RELEASE_USER,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def server_arguments(settings: Settings, host: str, port: int) -> list[str]:
    """Return the arguments of ``mlflow`` that start the server; the rest is environment."""
    return [
        *("server", "--app-name", APP, "--host", host, "--port", str(port)),
        *("--workers", str(settings.registry_workers), "--serve-artifacts"),
        *("--artifacts-destination", artifacts_url(settings)),
        *("--default-artifact-root", "mlflow-artifacts:/"),
        # a request that hangs does not keep the server from stopping
        *("--uvicorn-opts", "--timeout-graceful-shutdown 5"),
    ]


def is_loopback(url: str) -> bool:
    """Say whether `url` is an address of this machine that others cannot reach."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) is not None
