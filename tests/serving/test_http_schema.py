"""The OpenAPI document holds: requests made from it, good and bad, never surprise the server."""

from __future__ import annotations
