"""``dashboard``: browse a storage in optuna-dashboard."""

from __future__ import annotations

import errno
from socketserver import ThreadingMixIn
import sys
from typing import Annotated
from typing import Any
from wsgiref.simple_server import make_server
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.simple_server import WSGIServer

import typer

from samplers._llm.peers import is_ours
from studies.commands import options
from studies.commands.visitors import only_own_pages
from studies.errors import Misuse


HOST = "127.0.0.1"  # optuna-dashboard has no log-in, so it is for this user only


def dashboard(
    storage: options.Storage = options.DEFAULT_STORAGE,
    artifacts: options.Artifacts = None,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes any free one.")
    ] = 8080,
) -> None:
    """Browse a storage's studies in a web browser: history, parameters, curves, artifacts.

    Runs until Ctrl-C. Studies may go on meanwhile.
    """
    from optuna_dashboard import wsgi

    from studies.commands.work.dashboard import without_failures
    from studies.storage.open import open_artifacts
    from studies.storage.open import open_storage

    there = open_storage(storage, must_exist=True)
    app = without_failures(wsgi(there, artifact_store=open_artifacts(storage, artifacts)), there)
    app = only_own_pages(app)
    try:
        server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Misuse(f"port {port} is taken; choose another --port, 0 for any") from None
        raise
    print(f"http://{HOST}:{server.server_port}/dashboard  (Ctrl-C ends)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(file=sys.stderr)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if is_ours(client_address, request.getsockname()):
            return True
        print(f"refused a connection of another user of this machine to {HOST}", file=sys.stderr)
        return False


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A browser polls every few seconds; nobody wants to read that."""
