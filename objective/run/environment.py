"""The environment variables that a training sees: an allow-list, and what the user adds.

Never all of ours: they hold the keys of language model servers, and a script may have been written
by one of them. The list is of variables that change how libraries compute, where they keep what
they download, and by which way they reach the network. Names that sound like a secret are left out
even where a family is allowed, and so are proxies with a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import os
import re

from objective.testbed.source import TestbedError


ENVIRONMENT = frozenset(
    # the system
    "PATH HOME USER LOGNAME TMPDIR TZ LANG LC_ALL LC_CTYPE LD_LIBRARY_PATH XDG_CACHE_HOME"
    # Python, and the tools that start it
    " PYTHONPATH UV_CACHE_DIR UV_PYTHON_INSTALL_DIR UV_PROJECT_ENVIRONMENT UV_OFFLINE"
    " CONDA_PREFIX"
    # downloads
    " HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
    " SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
    " HF_HOME HF_ENDPOINT HF_HUB_OFFLINE HF_HUB_CACHE HF_DATASETS_CACHE HF_DATASETS_OFFLINE"
    " HF_HUB_ENABLE_HF_TRANSFER TRANSFORMERS_CACHE TRANSFORMERS_OFFLINE TORCH_HOME"
    # records
    " WANDB_MODE WANDB_DISABLED WANDB_SILENT WANDB_DIR TOKENIZERS_PARALLELISM"
    # processors
    " HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HSA_OVERRIDE_GFX_VERSION NUMEXPR_NUM_THREADS"
    " OPENBLAS_NUM_THREADS NVIDIA_TF32_OVERRIDE CUBLAS_WORKSPACE_CONFIG"
    # ours
    " AUTORESEARCH_CACHE AUTORESEARCH_CORPUS AUTORESEARCH_DEVICE AUTORESEARCH_SEED".split()
)
_FAMILIES = re.compile(
    r"(CUDA|NCCL|GLOO|OMP|KMP|MKL|PYTORCH|TORCHINDUCTOR|TORCHDYNAMO|TORCH_COMPILE|TRITON|CUDNN|XLA"
    r"|JAX|MIOPEN)_\w+"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_LIKE_A_KEY = re.compile(r"(?=[^/\s]*\d)(?=[^/\s]*[A-Za-z])[\w+=.~-]{20,}|@")
_PROXY = re.compile(r"(HTTPS?|ALL)_PROXY", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]\w*")


def script_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that a script gets: an allow-list of ours, and ``extra``.

    Python reads and writes UTF-8 in it, whatever the locale.
    """
    ours = {name: value for name, value in os.environ.items() if _is_technical(name, value)}
    return {**ours, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **(extra or {})}


def _is_technical(name: str, value: str) -> bool:
    if _PROXY.fullmatch(name) and "@" in value:
        return False
    family = _FAMILIES.fullmatch(name) and not _SECRET.search(name)
    return name in ENVIRONMENT or bool(family)


def may_be_secret(name: str, value: str) -> bool:
    """Return whether a variable may hold a key or password, by its name or by what it looks like."""
    return bool(_SECRET.search(name) or _LIKE_A_KEY.search(value))


def chosen_variables(words: Sequence[str]) -> dict[str, str]:
    """Read variables of the user's choice: ``NAME=VALUE``, or ``NAME`` with our own value of it.

    Raises:
        TestbedError: If one is no name, or has no value here.
    """
    chosen, problems = {}, []
    for word in words:
        name, equals, value = word.partition("=")
        if _NAME.fullmatch(name) is None:
            # The word itself may be a key.
            problems.append("--env must be NAME or NAME=VALUE, but got something else.")
        elif "\0" in value:
            problems.append(f"--env {name} must not contain a null character.")
        elif equals:
            chosen[name] = value
        elif name in os.environ:
            chosen[name] = os.environ[name]
        else:
            problems.append(f"--env {name} must be set here, or be given as {name}=VALUE.")
    if problems:
        raise TestbedError.of(problems)
    return chosen
