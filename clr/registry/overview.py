"""The whole registry at a glance: all aliases and versions, in a few calls for any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clr.registry.faults import calling
from clr.registry.store import RELEASE_MODEL, Registry
from clr.registry.versions import Version, as_version

_PAGE = 1000


@dataclass(frozen=True)
class Overview:
    """What is registered.

    Attributes:
        aliases: {task: {alias: version}}, sorted by task; tasks without versions too.
        versions: {task: versions, oldest first}.
        release_aliases: aliases of ``clr-release``.
        releases: versions of ``clr-release``, oldest first.
    """

    aliases: Mapping[str, Mapping[str, int]]
    versions: Mapping[str, tuple[Version, ...]]
    release_aliases: Mapping[str, int]
    releases: tuple[Version, ...]


def overview(registry: Registry) -> Overview:
    """Return what is registered now.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    client = registry.client
    with calling(registry.uri, "list what is registered"):
        aliases = {
            model.name: {alias: int(number) for alias, number in model.aliases.items()}
            for model in _pages(client.search_registered_models, "name LIKE 'clr-%'")
        }
        versions: dict[str, list[Version]] = {}
        for found in _pages(client.search_model_versions, "name LIKE 'clr-%'"):
            versions.setdefault(found.name, []).append(as_version(found))
    known = {
        name: tuple(
            # a search leaves the aliases out
            replace(one, aliases=tuple(sorted(a for a, n in points.items() if n == one.version)))
            for one in sorted(versions.get(name, ()), key=lambda one: one.version)
        )
        for name, points in sorted(aliases.items())
    }
    tasks = {name.removeprefix("clr-"): name for name in known if name != RELEASE_MODEL}
    return Overview(
        aliases={task: aliases[name] for task, name in tasks.items()},
        versions={task: known[name] for task, name in tasks.items()},
        release_aliases=aliases.get(RELEASE_MODEL, {}),
        releases=known.get(RELEASE_MODEL, ()),
    )


def _pages(search: Callable[..., Any], text: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(text, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
