"""Which pages may ask a web server of this user's: its own, and no other site's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from samplers._llm.local_http import is_own_name


if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse
    from _typeshed.wsgi import WSGIApplication
    from _typeshed.wsgi import WSGIEnvironment


def only_own_pages(app: WSGIApplication) -> WSGIApplication:
    """Refuse what a browser sends for another site's page, whatever name that gave this machine."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        origin = environ.get("HTTP_ORIGIN")
        if is_own_name(host) and (origin is None or urlsplit(origin).netloc == host):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Only pages of this server, by this machine's own name, may use it.\n"]

    return answer
