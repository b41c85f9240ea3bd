"""One request's time, size and shape, against a server that keeps to none of them."""

from __future__ import annotations

import gzip
import json
import pickle
import socket
import threading
import time
import tracemalloc

import openai
import pytest

from samplers._llm import transport
from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatUnavailable
from samplers._llm.openai_chat import OpenAIChat
from samplers._llm.transport import Transport

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import reply


ASK = [{"role": "user", "content": "Which values?"}]
JSON = {"Content-Type": "application/json"}

pytestmark = pytest.mark.usefixtures("short_pauses")


def connect(server: LoopbackServer, timeout: float = 20.0) -> OpenAIChat:
    return OpenAIChat("m", base_url=server.url, timeout=timeout, max_retries=0)


def test_an_answer_that_drips_is_given_up_at_the_deadline(server: LoopbackServer) -> None:
    server.answers = lambda body: Answer(json.dumps(reply("slow").body), drip=1.0)
    openai.OpenAI(api_key="none").close()  # which takes its time when it is the first
    with pytest.raises(ChatUnavailable, match=r"no answer within 0\.[1-5] s") as raised:
        connect(server, timeout=0.5).complete(ASK)
    assert raised.value.seconds < 10.0, "all of it takes 80 s"


def test_headers_that_drip_are_given_up_at_the_deadline() -> None:
    openai.OpenAI(api_key="none").close()  # which takes its time when it is the first
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2000:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.05)
                except OSError:
                    pass

        server = threading.Thread(target=drip, daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(ChatUnavailable, match="no answer within 0.5 s") as raised:
            OpenAIChat("m", base_url=url, timeout=0.5).complete(ASK)
        assert raised.value.seconds < 10.0, "the headers take 100 s"
        server.join(40.0)
        assert not server.is_alive(), "the connection is closed"


@pytest.mark.parametrize("layers", [1, 2])
def test_an_answer_that_unpacks_to_more_than_its_size_costs_no_memory(
    server: LoopbackServer, layers: int
) -> None:
    packed = b'{"choices": "' + b"x" * 50_000_000
    for _ in range(layers):
        packed = gzip.compress(packed, 9)
    headers = {**JSON, "Content-Encoding": ", ".join(["gzip"] * layers)}
    server.answers = [reply("hello"), Answer(packed, headers=headers)]
    del packed
    chat = connect(server)
    chat.complete(ASK)  # imports what it needs
    tracemalloc.start()
    with pytest.raises(ChatError, match="more than 8 MB"):
        chat.complete(ASK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    assert len(server.requests) == 2, "it would be as long another time"


def test_a_packed_answer_is_read(server: LoopbackServer) -> None:
    data = gzip.compress(json.dumps(reply("hello").body).encode())
    server.answers = [Answer(data, headers={**JSON, "Content-Encoding": "gzip"})]
    assert connect(server).complete(ASK).text == "hello"


KEY = "Sk-2345678"


@pytest.mark.parametrize(
    ("packing", "words"),
    [
        (f"x\x1b[31m{KEY}", r"packed by x\*\*\*\.$"),
        (f"{KEY}\x1b[0m, br", r"packed by \*\*\*, br\.$"),
        (f"{KEY[:5]}\x1b[0m{KEY[5:]}", r"packed by \*\*\*\.$"),
        ("gzip, gzip, gzip, gzip", "packed by gzip, gzip, gzip, gzip.$"),
        (",".join(["gzip"] * 1000), "packed by …$"),
    ],
    ids=["key", "in a list", "escape", "four", "many"],
)
def test_a_packing_that_is_not_known_is_one_line_without_the_key(
    server: LoopbackServer, packing: str, words: str
) -> None:
    server.answers = [Answer(b"abc", headers={**JSON, "Content-Encoding": packing})]
    chat = OpenAIChat("m", base_url=server.url, api_key=KEY, max_retries=0)
    with pytest.raises(ChatError, match=words) as raised:
        chat.complete(ASK)
    assert len(str(raised.value)) <= 300 and "\x1b" not in str(raised.value)


def test_whatever_goes_wrong_in_the_library_is_no_answer(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(transport, "_bounded_stream", fail)
    server.answers = [reply("hello")]
    with pytest.raises(ChatUnavailable, match="too deep"):
        connect(server).complete(ASK)


@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, '{"choices": ' * 100_000, '{"choices": ' + "9" * 10_000 + "}", "\xff\xfe"],
    ids=["brackets", "braces", "digits", "bytes"],
)
def test_an_answer_that_is_no_json_is_a_bad_answer(server: LoopbackServer, body: str) -> None:
    server.answers = [Answer(body.encode("latin-1"), headers=JSON)]
    with pytest.raises(ChatUnavailable, match="not JSON"):
        connect(server).complete(ASK)


def test_too_long_a_text_is_refused_while_it_arrives(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_BYTES", 100_000)
    server.answers = [reply("x" * 1_000_000)]
    with pytest.raises(ChatError, match="more than 0.1 MB"):
        connect(server).complete(ASK)


def test_a_redirection_is_told_and_not_followed(server: LoopbackServer) -> None:
    server.answers = [Answer({}, 308, {"Location": "https://user:secret@example.org/v1"})]
    with pytest.raises(ChatError, match=r"changed to https://user:\*\*\*@example.org") as raised:
        connect(server).complete(ASK)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "GROQ_API_KEY"])
def test_openais_account_is_told_only_where_openais_key_is_sent(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: 1\nAuthorization: Bearer another")
    monkeypatch.setenv(variable, "sk-of-this-server")
    server.answers = [reply("hello")] * 2
    chat = OpenAIChat("m", base_url=server.url, key_variable=variable)
    chat.complete(ASK)
    pickle.loads(pickle.dumps(chat)).complete(ASK)
    told = ["org-1", "proj-1", "1"] if variable == "OPENAI_API_KEY" else [None] * 3
    names = ("OpenAI-Organization", "OpenAI-Project", "X-Gateway")
    assert [[headers.get(n) for n in names] for headers in server.headers] == [told] * 2
    assert server.keys == ["Bearer sk-of-this-server"] * 2


def test_the_key_of_another_file_is_not_sent(
    server: LoopbackServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.answers = [reply("hello")]
    Transport().send("POST", f"{server.url}/chat/completions", key=None, body={}, seconds=5)
    assert server.keys == [None]
