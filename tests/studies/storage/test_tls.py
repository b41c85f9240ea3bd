"""A proxy that lets in only who has its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from studies.storage.open import open_storage
from studies.storage.open import StorageError
from studies.storage.tls import make_identity
from studies.storage.tls import read_identity
from tests.conftest import free_port
from tests.conftest import Serve
from tests.studies.conftest import Cli


def test_only_who_has_the_key_reaches_the_studies(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    key, other = tmp_path / "proxy.pem", tmp_path / "other.pem"
    serve(f"sqlite:///{tmp_path}/s.db", port, "--tls", str(key))
    assert key.stat().st_mode & 0o777 == 0o600
    storage = open_storage(f"grpc://127.0.0.1:{port}?tls={key}")
    study = optuna.create_study(storage=storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2
    make_identity(other)
    for stranger in ("", f"?tls={other}"):
        with pytest.raises(StorageError, match="must be served"):
            open_storage(f"grpc://127.0.0.1:{port}{stranger}")


def test_without_a_key_only_its_own_user_is_served(
    serve: Serve, tmp_path: Path, as_another_user: Callable[[int], int]
) -> None:
    port, open_port = free_port(), free_port()
    serve(f"sqlite:///{tmp_path}/s.db", port)
    serve(f"sqlite:///{tmp_path}/s.db", open_port, "--insecure")
    optuna.create_study(storage=open_storage(f"grpc://127.0.0.1:{port}"), study_name="s")
    with pytest.raises(StorageError, match="it serves its own user only") as error:
        open_storage(f"grpc://127.0.0.1:{as_another_user(port)}")
    assert "\n" not in str(error.value)
    everybody = open_storage(f"grpc://127.0.0.1:{as_another_user(open_port)}")
    assert [study.study_name for study in everybody.get_all_studies()] == ["s"]


def test_nobody_else_may_read_a_key(tmp_path: Path) -> None:
    key = tmp_path / "proxy.pem"
    make_identity(key)
    key.chmod(0o640)
    with pytest.raises(StorageError, match=f"chmod 600 {key}"):
        read_identity(key)
    key.chmod(0o600)
    read_identity(key)
    with pytest.raises(StorageError, match="must be a new file"):
        make_identity(key)


# A key of an algorithm that nobody knows.
UNKNOWN = b"""-----BEGIN PRIVATE KEY-----
MBICAQAwCQYHKoZIzj0CfwQCBQA=
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----", b"\xff" * 100, UNKNOWN])
def test_a_file_of_something_else_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    key = tmp_path / "proxy.pem"
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(StorageError, match="must hold a key and its certificate") as refused:
        read_identity(key)
    assert "\n" not in str(refused.value)


def test_no_database_is_served_to_everybody_by_mistake(cli: Cli) -> None:
    error = cli.fails(2, "serve-storage", cli.storage, "--host", "0.0.0.0")
    assert "give --tls FILE (or --insecure" in error
