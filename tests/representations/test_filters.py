"""The shipped constants against the installed librosa's."""

import numpy as np
import pytest

from mrkd_ray.representations import filters


@pytest.mark.parametrize("key", filters.SHIPPED)
def test_what_is_shipped_is_what_librosa_builds(key: str) -> None:
    shipped, built = filters.get(key), filters.build(key)
    assert (shipped.dtype, shipped.shape) == (built.dtype, built.shape)
    assert np.abs(shipped - built).max() <= 1e-6 * np.abs(built).max()
    assert np.array_equal(shipped == 0, built == 0)  # sparsified at the same places


def test_the_file_holds_what_it_says_and_is_small() -> None:
    assert set(filters._shipped()) == set(filters.SHIPPED)
    assert filters.FILE.stat().st_size < 100_000


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError, match="bark"):
        filters.get("bark-64")
