"""A real `serve-storage` in a process of its own, which a test may kill."""

from __future__ import annotations

from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
import pytest

from studies.storage.open import open_storage
from studies.storage.open import StorageError
from studies.storage.proxy import check_served
from studies.storage.proxy import PatientProxy
from studies.storage.recovery import set_patience
from tests.conftest import free_port
from tests.conftest import Serve
from tests.studies.storage.test_open import claim_side_by_side


def test_a_served_database_is_a_storage_that_outlasts_its_server(
    serve: Serve, postgres_url: str
) -> None:
    port = free_port()
    url = f"grpc://127.0.0.1:{port}"
    server = serve(postgres_url, port)
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    direct = optuna.load_study(study_name="s", storage=open_storage(postgres_url))
    assert study.trials == direct.trials

    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    running = study.ask()
    server.kill()
    server.wait()
    teller = threading.Thread(target=study.tell, args=(trial, 0.5))
    teller.start()
    time.sleep(0.5)
    assert teller.is_alive() and direct.trials[2].state == TrialState.RUNNING
    server = serve(postgres_url, port)
    teller.join(60)
    assert direct.trials[2].value == 0.5
    running.suggest_float("x", 0, 1)
    assert direct.trials[3].params == running.params

    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    set_patience(study._storage, 0.0)
    with pytest.raises(StorageInternalError, match=f"the storage at {url}: "):
        study.trials


def test_a_served_file_gives_every_trial_to_one_worker(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    serve(f"sqlite:///{tmp_path}/s.db", port)
    claim_side_by_side(f"grpc://127.0.0.1:{port}")
    taken = subprocess.run(
        [sys.executable, "-m", "studies", "serve-storage", f"sqlite:///{tmp_path}/s.db"]
        + ["--port", str(port)],
        capture_output=True,
        text=True,
    )
    assert taken.returncode == 2 and f"127.0.0.1:{port} must be free to listen at" in taken.stderr


def test_an_end_that_was_stored_but_not_confirmed_is_not_told_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import grpc

    class Lost(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "Socket closed"

    memory = optuna.storages.InMemoryStorage()
    calls = 0

    def end(proxy: object, *arguments: object) -> bool:
        nonlocal calls
        calls += 1
        memory.set_trial_state_values(*arguments)  # type: ignore[arg-type]
        raise Lost

    base = optuna.storages.GrpcStorageProxy
    monkeypatch.setattr(base, "set_trial_state_values", end)
    monkeypatch.setattr(
        PatientProxy, "get_trial", lambda proxy, trial_id: memory.get_trial(trial_id)
    )
    study = optuna.create_study(storage=memory)
    trial = study.ask()
    proxy = PatientProxy(host="127.0.0.1", port=1, heartbeat_interval=10, grace_period=60)
    assert proxy.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.25])
    assert calls == 1 and study.trials[0].value == 0.25


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_proxy_that_is_not_there_is_one_clear_line(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"grpc://{host}:{free_port()}"
    refused = f"{url} must be served, but: the storage at {url}: "
    with pytest.raises(StorageError, match=re.escape(refused)) as error:
        open_storage(url)
    # Whether this machine has IPv6 or not, it is an address and not a name to be looked up.
    assert "\n" not in str(error.value) and "lookup" not in str(error.value)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(StorageError, match="needs grpc, which isn't installed: pip install"):
        open_storage(url)


@pytest.mark.parametrize("url", ["sqlite://", "journal:s.log", "grpc://host:1"])
def test_what_cannot_be_served_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="A storage to serve must be a database, but "):
        check_served(url)
