"""The embedded model, for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
import json
from pathlib import Path
import pickle
import subprocess
import sys

import pytest

from samplers._llm import embedded
from samplers._llm.chat import Chat
from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ContextTooLong
from samplers._llm.chat import NoChatFound
from samplers._llm.connect import default_chat
from samplers._llm.connect import open_embedded
from samplers._llm.openai_chat import OpenAIChat
from samplers._llm.reply import changes_schema
from samplers._llm.reply import params_schema
from samplers._llm.reply import parse_params

from .conftest import only_llama_cpp
from .test_prompt import SPACE


pytestmark = pytest.mark.llm

BASE = {
    "DEPTH": 8,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 128,
    "DEVICE_BATCH_SIZE": 128,
    "TOTAL_BATCH_SIZE": 524288,
    "EMBEDDING_LR": 0.6,
    "UNEMBEDDING_LR": 0.004,
    "MATRIX_LR": 0.04,
    "SCALAR_LR": 0.5,
    "WEIGHT_DECAY": 0.2,
    "WARMUP_RATIO": 0.0,
    "WARMDOWN_RATIO": 0.5,
    "FINAL_LR_FRAC": 0.0,
    "WINDOW_PATTERN": "SSSL",
}
ASK = [{"role": "user", "content": "Reply with a JSON object of hyperparameters."}]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return default_chat()


@pytest.fixture
def llama_cpp() -> Iterator[None]:
    with only_llama_cpp():
        yield


@pytest.fixture(scope="module", params=["OpenVINO", "llama.cpp"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of the whole module, whose tests of one engine then share its server."""
    with only_llama_cpp() if request.param == "llama.cpp" else nullcontext():
        yield


@pytest.mark.usefixtures("any_engine")
def test_without_any_setting_the_embedded_model_answers(chat: Chat) -> None:
    completion = chat.complete(ASK, max_tokens=5, seed=0)
    assert completion.text and completion.model.startswith("SmolLM2-135M")
    assert chat.context_tokens == 8192
    assert chat.count_tokens("0.0123") == 6


def test_it_is_started_once(chat: Chat) -> None:
    assert embedded.embedded_server() == embedded.embedded_server()


@pytest.mark.usefixtures("any_engine")
@pytest.mark.parametrize("form", ["full", "menu"])
def test_its_replies_follow_the_schema(chat: Chat, form: str) -> None:
    schema = params_schema(SPACE) if form == "full" else changes_schema(SPACE, BASE)
    completion = chat.complete(ASK, schema=schema, max_tokens=400, seed=1)
    reply = json.loads(completion.text)
    assert set(reply) <= set(SPACE) and (form == "menu" or list(reply) == list(SPACE))
    parsed = parse_params(completion.text, SPACE, BASE)
    for name, distribution in SPACE.items():
        assert distribution._contains(distribution.to_internal_repr(parsed.params[name]))
    if form == "menu":
        assert not parsed.repairs, "a menu has no value out of bounds"


@pytest.mark.usefixtures("llama_cpp")
def test_an_unchanged_beginning_comes_from_llama_cpps_cache(chat: Chat) -> None:
    rows = "\n".join(f"{i},0.0{i},5242{i}" for i in range(20))
    first = chat.complete([{"role": "user", "content": rows}], max_tokens=1, seed=0)
    second = chat.complete([{"role": "user", "content": rows + "\n20,1,1"}], max_tokens=1, seed=0)
    assert second.cached_tokens >= 0.8 * first.prompt_tokens


@pytest.mark.usefixtures("llama_cpp")
def test_without_llama_cpps_cache_a_seed_decides_the_reply() -> None:
    replies = set()
    for _ in range(2):
        exact = open_embedded(make=partial(OpenAIChat, extra={"cache_prompt": False}))
        replies.add(exact.complete(ASK, max_tokens=20, seed=5).text)
    assert len(replies) == 1


@pytest.mark.usefixtures("any_engine")
def test_a_prompt_beyond_its_context_says_what_fits(chat: Chat) -> None:
    with pytest.raises(ContextTooLong) as raised:
        chat.complete([{"role": "user", "content": "x y " * 9000}])
    assert raised.value.limit == 8192 and (raised.value.prompt_tokens or 0) >= 8192


@pytest.mark.usefixtures("any_engine")
def test_a_server_that_is_gone_is_started_again(chat: Chat) -> None:
    chat.complete(ASK, max_tokens=1)
    embedded.close_embedded_servers()
    assert chat.complete(ASK, max_tokens=1).attempts == 1


@pytest.mark.usefixtures("any_engine")
def test_it_prints_nothing_and_ends_with_the_process_in_the_middle_of_answers() -> None:
    code = (
        "import sys, threading, time\n"
        "from samplers._llm import embedded\n"
        "from samplers._llm.presets import open_chat\n"
        "if sys.argv[1] == 'llama.cpp': embedded._has_openvino = lambda: False\n"
        "chat = open_chat('local')\n"
        "story = [{'role': 'user', 'content': 'Tell a long story of a dragon.'}]\n"
        "ask = lambda: chat.complete(story, max_tokens=4000)\n"
        "chat.complete(story, max_tokens=1)\n"
        "for _ in range(3): threading.Thread(target=ask, daemon=True).start()\n"
        "time.sleep(1)"
    )
    engine = "OpenVINO" if embedded._has_openvino() else "llama.cpp"
    argv = [sys.executable, "-c", code, engine]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("llama_cpp")
def test_a_pickled_chat_starts_a_server_in_its_new_process(chat: Chat, tmp_path: Path) -> None:
    chat.complete(ASK, max_tokens=1)
    (tmp_path / "chat").write_bytes(pickle.dumps(chat))
    code = (
        "import pickle, sys; from samplers._llm import embedded\n"
        "embedded._has_openvino = lambda: False\n"
        "chat = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert chat.complete([{'role': 'user', 'content': 'Hi'}], max_tokens=1).completion_tokens\n"
        "print(embedded.embedded_server())"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "chat")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("http://127.0.0.1:"), done.stderr
    assert done.stdout.strip() != embedded.embedded_server()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_text("not a model")
    with pytest.raises(ChatRejected, match="Can't serve broken.gguf.*llama.cpp"):
        embedded.embedded_server(path)
    with pytest.raises(NoChatFound, match="there is no"):
        open_embedded(tmp_path / "missing.gguf")


def test_serve_answers_other_processes(tmp_path: Path) -> None:
    code = (
        "import optuna; from samplers._llm import embedded\n"
        "embedded._has_openvino = lambda: False\n"
        "optuna.logging.set_verbosity(optuna.logging.INFO); embedded.serve(port=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            url = line.split("Serving at ")[1].split(". Stop")[0]
            assert OpenAIChat(base_url=url).complete(ASK, max_tokens=1).model
        finally:
            process.terminate()
