"""The folder ``mlflow/`` of a workspace: what the registry server is configured from."""

from __future__ import annotations

from clr.registry.roles import POLICY_TEMPLATE
from clr.registry.server.config import AUTH_TEMPLATE
from clr.registry.server.subscriptions import WEBHOOKS_TEMPLATE

TEMPLATES = {
    "mlflow/policy.yaml": POLICY_TEMPLATE,
    "mlflow/auth.ini": AUTH_TEMPLATE,
    "mlflow/webhooks.yaml": WEBHOOKS_TEMPLATE,
}
"""Text by path in the workspace, as ``clr init`` writes it; all of it belongs into git."""
