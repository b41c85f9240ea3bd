"""``serve-llm``: one embedded language model for several studies."""

from __future__ import annotations

from typing import Annotated

import typer


def serve_llm(
    model: Annotated[
        str | None,
        typer.Option(metavar="GGUF", help="Path of a model. [default: the embedded SmolLM2-135M]"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 serves other machines too; there is no log-in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8008,
) -> None:
    """Serve the embedded language model at an OpenAI-compatible address, until Ctrl-C.

    Studies use it by --llm http://HOST:PORT/v1.
    """
    from samplers._llm.embedded import serve

    serve(model, host=host, port=port)
