"""Shares of GPUs, and what fits, without a cluster."""

from __future__ import annotations

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed.cluster import Cluster, connect


@pytest.mark.parametrize(
    ("gpus", "branches", "share"),
    [(0, 2, 0.0), (1, 1, 1.0), (1, 2, 0.5), (1, 3, 0.3333), (2, 3, 0.5), (4, 2, 1.0), (4, 4, 1.0)],
)
def test_a_branch_takes_one_gpu_or_an_equal_share(gpus: float, branches: int, share: float) -> None:
    cluster = Cluster(((8.0, gpus),), None)
    assert cluster.gpus_per_branch(branches) == share
    cluster.check_fits("c", branches, 1, share)


def test_bundles_must_fit_into_nodes_and_not_only_into_the_sum() -> None:
    cluster = Cluster(((4.0, 1.0), (4.0, 1.0)), None)
    cluster.check_fits("c", 2, 4, 1.0)
    cluster.check_fits("c", 4, 2, 0.5)
    with pytest.raises(UserError, match="room for 2"):  # 0.6 of a card twice does not fit on it
        Cluster(((8.0, 2.0),), None).check_fits("c", 3, 1, 0.6)
    with pytest.raises(UserError, match=r"cell c can never start.*room for 0"):
        cluster.check_fits("c", 1, 8, 0)
    with pytest.raises(UserError, match=r"2 branches needs 1 CPU\(s\) and 0.6 GPU\(s\)"):
        Cluster(((8.0, 1.0),), None).check_fits("c", 2, 1, 0.6)


def test_a_cell_that_needs_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"room for 1 .*1 GPUs on 1 node"):
        Cluster(((8.0, 1.0),), None).check_fits("c", 2, 1, 1.0)


def test_a_machine_on_which_ray_takes_too_long_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match=r"did not start within.*--runner local"), connect(None, 1):
        pass
