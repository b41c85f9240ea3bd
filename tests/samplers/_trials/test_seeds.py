"""Seeds from a seed and a path."""

from __future__ import annotations

import numpy as np

from samplers._trials.seeds import derive_seed


def test_a_seed_of_numpy_s_is_the_number_that_it_is() -> None:
    assert derive_seed(np.int64(5), 1, "x") == derive_seed(5, 1, "x")  # type: ignore[arg-type]


def test_each_step_of_the_path_counts() -> None:
    paths: list[tuple[int | str, ...]] = [(), (1,), (2,), (1, 2), (12,), ("1",), (2, 1)]
    assert len({derive_seed(0, *path) for path in paths} | {derive_seed(1)}) == len(paths) + 1
