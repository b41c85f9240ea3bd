"""``serve-storage`` and ``serve-llm``: a database for many workers, a language model for many studies."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from studies.stopping import stop_by_signal
from studies.storage import PROXY_PORT


Host = Annotated[str, typer.Option(help="0.0.0.0 serves other machines too; there is no log-in.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]


def serve_storage(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The database: postgresql://..., mysql://... or sqlite:///FILE."
        ),
    ],
    host: Host = "127.0.0.1",
    port: Port = PROXY_PORT,
) -> None:
    """Serve a database to many workers over gRPC, until Ctrl-C.

    Workers use it by --storage grpc://HOST:PORT. They wait for a server that is started again. An
    SQLite file may be served too, so that other machines can use it; use it in no other way
    meanwhile.
    """
    from studies.storage.open import open_storage
    from studies.storage.proxy import check_grpc
    from studies.storage.proxy import check_served
    from studies.storage.proxy import serve
    from studies.storage.recovery import hurry

    check_grpc()
    check_served(url)
    storage = open_storage(url)
    stop_by_signal()
    try:
        serve(url, storage, host, port, lambda at: print(f"{at}  (Ctrl-C ends)", flush=True))
    except KeyboardInterrupt:
        hurry(storage)  # calls that wait for the database would keep the process
        print(file=sys.stderr)


def serve_llm(
    model: Annotated[
        str | None,
        typer.Option(metavar="GGUF", help="Path of a model. [default: the embedded SmolLM2-135M]"),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8008,
) -> None:
    """Serve the embedded language model at an OpenAI-compatible address, until Ctrl-C.

    Studies use it by --llm http://HOST:PORT/v1.
    """
    from samplers._llm.embedded import serve

    serve(model, host=host, port=port)
