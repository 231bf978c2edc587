"""What a branch's actor adds to its branch, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.distributed.actors import BranchActor


def test_every_cycle_has_its_own_teacher() -> None:
    """The shards are joined in memory that stays: nothing of an old teacher may stay with it."""
    taught: list[np.ndarray] = []
    actor = BranchActor(BranchSpec(representation="cqt", network="vgg_small"))
    actor._branch = SimpleNamespace(  # type: ignore[assignment]
        distil=lambda teacher, *_: taught.append(teacher.copy())
    )
    rng = np.random.default_rng(0)
    shapes = [(12, 3), (12, 3), (7, 3), (12, 5), (12, 3)]  # cells of other data follow in an actor
    teachers = [rng.random(shape, np.float32) for shape in shapes]
    for shards, teacher in zip((3, 1, 2, 5, 4), teachers, strict=True):
        actor.distil(2.0, 1, *np.array_split(teacher, shards))
    for given, found in zip(teachers, taught, strict=True):
        np.testing.assert_array_equal(given, found)
