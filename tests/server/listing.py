"""Print what the registry server answers: endpoints of Flask, routes of FastAPI, our tables.

``python tests/server/listing.py FOLDER > tests/server/golden/endpoints.json`` writes the golden
file anew, after every difference was put into clr/registry/server/endpoints.py on purpose.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def settle(folder: Path) -> None:
    """Make a workspace, and the environment in which MLflow's worker starts."""
    (folder / "data.dvc").touch()
    ini = folder / "auth.ini"
    ini.write_text(
        "[mlflow]\ndefault_permission = MANAGE\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
    )
    os.environ.update(
        MLFLOW_AUTH_CONFIG_PATH=str(ini),
        MLFLOW_AUTH_ADMIN_PASSWORD="a-long-password-1",
        MLFLOW_FLASK_SERVER_SECRET_KEY="x",
        MLFLOW_DISABLE_TELEMETRY="true",
        _MLFLOW_SGI_NAME="uvicorn",
        CLR_WORKSPACE=str(folder),
        CLR_HOME=str(folder / "state"),
    )


def listing() -> dict[str, Any]:
    """Return endpoints of Flask, routes of FastAPI with their kind of act, our tables and hooks."""
    from clr.registry.server.app import create_app

    served = create_app()
    from fastapi.routing import iter_route_contexts
    from mlflow.server import app as flask_app

    from clr.registry.server import endpoints
    from clr.registry.server.guard import native_act

    flask: dict[str, set[str]] = {}
    for rule in flask_app.url_map.iter_rules():
        flask.setdefault(rule.endpoint, set()).update(rule.methods - {"HEAD", "OPTIONS"})
    native: dict[str, set[str]] = {}
    for route in iter_route_contexts(served.routes):
        if route.path:
            native.setdefault(route.path, set()).update(route.methods or {"*"})
    kinds = {
        f"{method} {path}": native_act(method, path, reads=False).act.kind.value
        for path, methods in sorted(native.items())
        for method in sorted(methods - endpoints.SAFE_METHODS)
    }
    return {
        "flask": {name: sorted(methods) for name, methods in sorted(flask.items())},
        "native": {path: sorted(methods) for path, methods in sorted(native.items())},
        "native_kinds": kinds,
        "tables": {
            "acts": sorted(endpoints.ACTS),
            "reads": sorted(endpoints.READS),
            "public": sorted(endpoints.PUBLIC),
            "middleware": [one.cls.__name__ for one in served.user_middleware][:1],
            "hooks": [
                [hook.__qualname__ for hook in hooks[None]]
                for hooks in (flask_app.before_request_funcs, flask_app.after_request_funcs)
            ],
        },
    }


if __name__ == "__main__":
    settle(Path(sys.argv[1]))
    print(json.dumps(listing(), indent=1))
