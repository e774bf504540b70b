"""The server's secrets: from the environment, or made once into files that only their owner reads.

====================================  ================  =================================
environment                           ``secrets/…``     what for
====================================  ================  =================================
MLFLOW_FLASK_SERVER_SECRET_KEY        flask.key         MLflow's sign-up form
MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY  webhook.key       webhook secrets in the database
                                                        (Fernet)
CLR_WEBHOOK_SECRET                    webhook.secret    signatures from server to release
                                                        service
MLFLOW_AUTH_ADMIN_PASSWORD            admin.password    user ``admin``
CLR_RELEASE_PASSWORD                  release.password  user ``clr-release``, the release
                                                        service
CLR_TRAINER_PASSWORD                  trainer.password  user ``clr-trainer``, the flows
CLR_SERVER_PASSWORD                   server.password   user ``clr-server``, predictions
PREFECT_SERVER_API_AUTH_STRING        prefect.auth      ``user:password`` of Prefect's server
====================================  ================  =================================

What the environment gives is never written down; what a file holds is never printed.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clr.errors import ServiceUnavailable, UsageError

MIN_PASSWORD = 12
MAX_SECRET = 256


@dataclass(frozen=True)
class Secret:
    """One secret.

    Attributes:
        file: its name under ``<CLR_HOME>/secrets``.
        variable: environment variable that wins over the file.
        make: returns a new random one.
        check: returns what is wrong with a value; empty if nothing.
    """

    file: str
    variable: str
    make: Callable[[], str]
    check: Callable[[str], str]


def password_problem(password: str) -> str:
    """Return why `password` cannot be one on the registry server; empty if it can.

    Twelve characters are MLflow's rule. Printable ASCII is what a browser and MLflow's
    client encode alike: with other letters one of them would be refused.
    """
    if len(password) < MIN_PASSWORD:
        return f"it has fewer than {MIN_PASSWORD} characters"
    if len(password) > MAX_SECRET:
        return f"it has more than {MAX_SECRET} characters"
    if not (password.isascii() and password.isprintable()):
        return "it has characters other than printable ASCII"
    return ""


def _fernet_problem(key: str) -> str:
    try:
        size = len(base64.urlsafe_b64decode(key.encode("ascii")))
    except (ValueError, binascii.Error):
        size = 0
    return "" if size == 32 else "it is not 32 bytes in URL-safe base64"


def _random_text() -> str:
    return secrets.token_urlsafe(32)


def _random_login() -> str:
    return f"clr:{_random_text()}"


def _login_problem(login: str) -> str:
    user, colon, password = login.partition(":")
    return password_problem(password) if user and colon else "it is not user:password"


def _random_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


FLASK_KEY = Secret("flask.key", "MLFLOW_FLASK_SERVER_SECRET_KEY", _random_text, password_problem)
WEBHOOK_KEY = Secret(
    "webhook.key", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", _random_key, _fernet_problem
)
WEBHOOK_SECRET = Secret("webhook.secret", "CLR_WEBHOOK_SECRET", _random_text, password_problem)
ADMIN_PASSWORD = Secret(
    "admin.password", "MLFLOW_AUTH_ADMIN_PASSWORD", _random_text, password_problem
)
RELEASE_PASSWORD = Secret(
    "release.password", "CLR_RELEASE_PASSWORD", _random_text, password_problem
)
TRAINER_PASSWORD = Secret(
    "trainer.password", "CLR_TRAINER_PASSWORD", _random_text, password_problem
)
SERVER_PASSWORD = Secret("server.password", "CLR_SERVER_PASSWORD", _random_text, password_problem)
PREFECT_AUTH = Secret(
    "prefect.auth", "PREFECT_SERVER_API_AUTH_STRING", _random_login, _login_problem
)
ALL = (
    FLASK_KEY, WEBHOOK_KEY, WEBHOOK_SECRET, ADMIN_PASSWORD, RELEASE_PASSWORD, TRAINER_PASSWORD,
    SERVER_PASSWORD,
)  # fmt: skip


def secrets_folder(state: Path) -> Path:
    """Return the folder of the secret files under ``CLR_HOME``."""
    return state / "secrets"


def find_secret(state: Path, secret: Secret) -> str:
    """Return `secret` from the environment or its file; empty where this user can read neither.

    Raises:
        UsageError: it cannot be what it should be (too short, damaged).
    """
    given = os.environ.get(secret.variable, "")
    if given:
        return _checked(given, secret, f"the environment variable {secret.variable}")
    path = secrets_folder(state) / secret.file
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    except OSError:
        return ""
    return _checked(text, secret, str(path))


def ensure_secret(state: Path, secret: Secret) -> str:
    """Return `secret`, making its file on first use; several processes may do so at once.

    Raises:
        UsageError: it cannot be what it should be, or somebody else could have read it.
        ServiceUnavailable: its file cannot be written or read.
    """
    given = os.environ.get(secret.variable, "")
    if given:
        return _checked(given, secret, f"the environment variable {secret.variable}")
    folder = secrets_folder(state)
    path = folder / secret.file
    try:
        _private_folder(folder)
        if not path.exists():
            _create(path, secret.make())
        _refuse_shared(path)
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise ServiceUnavailable(
            f"The secret {path} cannot be used: {error.strerror or error}.",
            fix="Make the folder writable for the user who runs the server, or give the secret "
            f"in the environment: {secret.variable}.",
        ) from error
    return _checked(text, secret, str(path))


def _checked(value: str, secret: Secret, where: str) -> str:
    problem = secret.check(value)
    if problem:
        raise UsageError(
            f"The secret in {where} cannot be used: {problem}.",
            fix="Correct it, or remove it: a new one is made when the server starts.",
        )
    return value


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def _create(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; who comes second leaves the first one's."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not path.exists():
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_shared(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(
            f"The secret {path} can be read by others (mode {mode:04o}).",
            fix=f"See who had access; then `chmod 600 {path}`, or remove it: a new one is made "
            "when the server starts.",
        )
