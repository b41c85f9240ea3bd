"""``serve-storage`` and ``serve-llm``: a database for many workers, a language model for many studies."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Annotated

import typer

from studies.stopping import acknowledge
from studies.stopping import stop_by_signal
from studies.storage import PROXY_PORT


Host = Annotated[
    str,
    typer.Option(
        help="127.0.0.1 serves you alone (on Linux); 0.0.0.0 other machines and users, too, and"
        " asks for no password."
    ),
]
Port = Annotated[int, typer.Option(metavar="N", min=1, max=65535)]


def serve_storage(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The database: postgresql://..., mysql://... or sqlite:///FILE."
        ),
    ],
    host: Host = "127.0.0.1",
    port: Port = PROXY_PORT,
    tls: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Let in only who has this file, a key and its certificate, and encrypt; made if it"
            " isn't there. Workers: --storage 'grpc://HOST:PORT?tls=FILE'.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Serve others without --tls: whoever reaches the port, as another user of this"
            " machine or from another one, may change studies.",
        ),
    ] = False,
) -> None:
    """Serve a database to many workers over gRPC, until Ctrl-C.

    Workers use it by --storage grpc://HOST:PORT. They wait for a server that is started again. An
    SQLite file may be served too, so that other machines can use it; use it in no other way
    meanwhile.
    """
    from samplers._llm.address import is_loopback
    from studies.errors import Misuse
    from studies.storage.open import open_storage
    from studies.storage.proxy import bracketed
    from studies.storage.proxy import check_grpc
    from studies.storage.proxy import check_served
    from studies.storage.proxy import serve
    from studies.storage.recovery import set_patience
    from studies.storage.tls import make_identity
    from studies.storage.tls import read_identity

    check_grpc()
    check_served(url)
    if tls is None and not insecure and not is_loopback(f"http://{bracketed(host)}"):
        raise Misuse(
            f"Whoever reaches {host}:{port} could read and change every study: give --tls FILE"
            " (or --insecure, if all who reach it may)."
        )
    identity = None
    if tls is not None:
        if not tls.exists():
            make_identity(tls)
            print(f"{tls} is new: copy it to the workers, and to nobody else", file=sys.stderr)
        identity = read_identity(tls)
    query = f"?tls={tls}" if tls is not None else ""
    storage = open_storage(url)
    stop_by_signal()

    def say(address: str) -> None:
        print(f"{address}{query}  (Ctrl-C ends)", flush=True)

    try:
        serve(url, storage, host, port, say, identity, everybody=insecure)
    except KeyboardInterrupt:
        acknowledge()
        set_patience(storage, 0.0)  # calls that wait for the database would keep the process
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
