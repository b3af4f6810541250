"""Exact search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.errors import InputError
from evaluation.index import top_k


def brute_force(
    queries_QD: NDArray[np.float32], corpus_CD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All scores, sorted in a stable way: equal scores by position."""
    scores_QC = queries_QD @ corpus_CD.T
    order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores_QC, order_QK, axis=1), order_QK


@pytest.mark.parametrize("k", [1, 10, 150])
def test_equal_to_brute_force(k: int) -> None:
    rng = np.random.default_rng(k)
    queries_QD = rng.standard_normal((70, 48)).astype(np.float32)
    corpus_CD = rng.standard_normal((5_000, 48)).astype(np.float32)
    scores_QK, ids_QK = top_k(queries_QD, corpus_CD, k)
    expected_scores, expected_ids = brute_force(queries_QD, corpus_CD, k)
    np.testing.assert_array_equal(ids_QK, expected_ids)
    np.testing.assert_allclose(scores_QK, expected_scores, rtol=1e-5)
    assert scores_QK.dtype == np.float32
    assert ids_QK.dtype == np.int64


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_ties_go_to_the_first(k: int, levels: int) -> None:
    """Small whole numbers give exact ties, with one level all passages are equal; brute force has the same rule."""
    rng = np.random.default_rng(levels)
    queries_QD = rng.integers(0, levels, (40, 8)).astype(np.float32)
    corpus_CD = rng.integers(0, levels, (3_000, 8)).astype(np.float32)
    scores_QK, ids_QK = top_k(queries_QD, corpus_CD, k)
    expected_scores, expected_ids = brute_force(queries_QD, corpus_CD, k)
    np.testing.assert_array_equal(ids_QK, expected_ids)
    np.testing.assert_array_equal(scores_QK, expected_scores)


def test_duplicates_of_real_numbers_are_ties() -> None:
    """Equal rows must not get scores that differ by rounding with their place in a block."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 384)).astype(np.float32)
    places = rng.integers(0, 30, 2_500)
    _, ids_QK = top_k(rng.standard_normal((25, 384)).astype(np.float32), rows[places], 200)
    for ids in ids_QK:
        for row in range(30):
            mine = ids[places[ids] == row]
            assert (np.diff(mine) > 0).all()
            assert set(mine) == set(np.flatnonzero(places == row)[: len(mine)])


def test_smaller_corpus_is_ranked_whole() -> None:
    scores_QK, ids_QK = top_k(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1].copy(), 10)
    np.testing.assert_array_equal(ids_QK, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(scores_QK, [[1, 0], [1, 0]])


def test_reads_a_memory_map(tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(0)
    corpus_CD = rng.standard_normal((500, 16)).astype(np.float32)
    path = tmp_path_factory.mktemp("index") / "corpus.npy"
    np.save(path, corpus_CD)
    queries_QD = corpus_CD[:20] * 2
    _, ids_QK = top_k(queries_QD, np.load(path, mmap_mode="r"), 5)
    np.testing.assert_array_equal(ids_QK, brute_force(queries_QD, corpus_CD, 5)[1])


def test_bad_input() -> None:
    some = np.ones((2, 4), dtype=np.float32)
    with pytest.raises(InputError, match="corpus is empty"):
        top_k(some, some[:0], 1)
    with pytest.raises(InputError, match="k is 0"):
        top_k(some, some, 0)
    with pytest.raises(InputError, match="queries have 4 dimensions and passages 3"):
        top_k(some, some[:, :3], 1)
