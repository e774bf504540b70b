"""The command `clr serve`."""

from __future__ import annotations

import click

from flows.command import Command


@click.command(cls=Command)
@click.option("--host", help="Address to listen on; default: CLR_SERVE_HOST.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: CLR_SERVE_PORT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line on stdout when it answers.")
def serve(host: str | None, port: int | None, as_json: bool) -> None:
    """Label images over HTTP with the release in force, until Ctrl-C or `kill`.

    Follows promotions and rollbacks by itself. Callers need a key (`clr keys add NAME`), unless
    CLR_SERVE_KEYS=false, which loopback addresses alone allow. Docs: docs/serving.md.

    \b
    Examples:
      clr serve
      CLR_SERVE_KEYS=false clr serve --port 8080 --json
    """
    from clr.settings import load_settings
    from flows.serve import run_server

    settings = load_settings()
    run_server(settings, host or settings.serve_host, port or settings.serve_port, as_json=as_json)
