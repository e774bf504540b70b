"""The sentence with which a guarded registry refused something."""

from __future__ import annotations

from typing import Any


def denial(error: BaseException) -> str | None:
    """Return why the server's policy did not allow it; None for any other error.

    A wrong password (401) is no refusal of the policy.
    """
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "error_code", "") == "PERMISSION_DENIED":
            return _sentence(getattr(link, "json", None), str(link))
        response = getattr(link, "response", None)
        if getattr(response, "status_code", 0) == 403:
            return _sentence(_document(response), str(link))
        link = link.__cause__ or link.__context__
    return None


def _document(response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _sentence(document: Any, text: str) -> str:
    if isinstance(document, dict) and document.get("message"):
        return str(document["message"])
    return text.removeprefix("PERMISSION_DENIED: ")
