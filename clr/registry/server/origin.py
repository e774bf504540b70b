"""From which web page a browser sends a request (pure).

A browser adds a person's name and password by itself to whatever any page asks of the server.
MLflow refuses pages from other machines, but takes every port of this machine for its own, so
that a notebook opened beside the registry could approve in its reader's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

_OWN = {"same-origin", "none"}


def foreign_page(headers: Iterable[tuple[str, str]]) -> str:
    """Object to a change that the page of another site asks for; empty where it is our own.

    Browsers say so in ``Sec-Fetch-Site``, which no script can write; over plain HTTP from
    another machine they leave it out, and the page's address is compared with the server's.
    Programs send neither.

    Args:
        headers: of the request, with names in any case.
    """
    sent = {name.lower(): value for name, value in headers}
    site, origin = sent.get("sec-fetch-site", ""), sent.get("origin", "")
    own = site in _OWN if site else not origin or urlsplit(origin).netloc == sent.get("host", "")
    if own:
        return ""
    return (
        f"A web page of {origin[:100] or 'another site'} asks for this in your name, and nothing "
        "is changed for the pages of others. If you want it, do it on the registry's own page."
    )
