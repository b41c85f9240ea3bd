"""Keys and passwords stay hidden however they are written; escapes reach no terminal."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote
from urllib.parse import quote_plus

import pytest

from samplers._llm.masking import mask
from samplers._llm.masking import mask_all
from samplers._llm.masking import passwords
from samplers._llm.masking import printable


KEYS = [
    "gsk_0123456789abcdefABCDEF",
    "hf_AbCdEfGhIjKlMnOp",
    "0123456789abcdef0123456789abcdef",
    'a"key\\with/odd+signs=&<%>',
    "corporate.key~of|some#kind",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "encode",
    [
        str,
        repr,
        json.dumps,
        html.escape,
        quote,
        quote_plus,
        str.upper,
        lambda key: quote(key, safe="").lower(),
        lambda key: key.encode().hex(),
        lambda key: repr(key.encode()),
        lambda key: base64.b64encode(key.encode()).decode(),
        lambda key: base64.urlsafe_b64encode(f"Bearer {key}".encode()).decode(),
        lambda key: base64.b64encode(f"u:{key}:v".encode()).decode(),
        lambda key: json.dumps({"said": json.dumps(key)}),
    ],
)
def test_a_key_is_masked_in_every_encoding(key: str, encode: object) -> None:
    assert callable(encode)
    text = mask(f"before {encode(key)} after", key)
    assert "***" in text and text.startswith("before ") and text.endswith(" after")
    assert key not in text and key[4:-4].lower() not in text.lower()


def test_what_is_no_secret_stays() -> None:
    assert mask('{"x": 1}', "1", "none", "EMPTY", None) == '{"x": 1}'


@pytest.mark.parametrize(
    "text, shown",
    [
        ("postgresql://me:pa55word@db/x", "postgresql://me:***@db/x"),
        ("mysql+pymysql://me:p@ss/w:rd@db/x", "mysql+pymysql://me:***@db/x"),
        ("redis://:pa55word@db/0", "redis://:***@db/0"),
        ("postgresql://admin@server:pa55@db/x", "postgresql://admin@server:***@db/x"),
        ("'postgresql://me:pa55word@db/x' failed", "'postgresql://me:***@db/x' failed"),
        ("https://example.org/v1?api_key=abc&x=1", "https://example.org/v1?api_key=***&x=1"),
        (
            "connection to host=db password=pa55 failed",
            "connection to host=db password=*** failed",
        ),
        ("sqlite:///study.db and http://127.0.0.1:80/v1", None),
    ],
)
def test_passwords_in_addresses_are_masked(text: str, shown: str | None) -> None:
    assert mask_all(text) == (shown or text)
    for password in passwords(text):
        assert password in text and password not in mask_all(text)


@pytest.mark.parametrize("password", ["it's-secret", 'say "word"', "two words", "t0ken" * 500])
def test_any_password_of_a_whole_address_is_known(password: str) -> None:
    text = f"postgresql://me@server:{password}@db/x"
    assert password not in mask(f"could not open {text!r}", *passwords(text))
    assert quote(password) not in mask(quote(text), *passwords(text))


def test_terminals_escapes_and_lone_surrogates_go() -> None:
    colours, title, link = "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\y"
    assert printable(f"{colours}{title}{link}") == "redy"
    assert printable("a\ud800b\x00c\x9b2Jd\x1b") == "a\ufffdb\ufffdcd\ufffd"
    assert printable("tab\tline\r\nform\x0cnext\x85 ä 😀") == "tab\tline\r\nform\x0cnext\x85 ä 😀"
    assert printable("\x1b]" * 100_000).count("\ufffd") <= 100_000
