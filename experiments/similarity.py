# mypy: ignore-errors
"""A trial: branches also learn how alike the others' embeddings find the clips of a batch.

    python experiments/similarity.py WEIGHT ARGUMENTS_OF_RUN_GRID --runner local

The embeddings of a virtual batch [B, D], what a network's last layer is given, are centred; their
cosines [B, B] are averaged over the branches, and the mean squared difference to this average joins
Eq. 5 (similarity-preserving knowledge distillation, Tung and Mori 2019; a cohort is the teacher).
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F

from mrkd_ray import branch, cohort, losses
from mrkd_ray.networks import classifier_layer

WEIGHT = float(sys.argv.pop(1))
COSINES: dict[str, list[torch.Tensor]] = {}
current: Any = None
plain_loss = losses.distillation_loss


def cosines(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the cosines [B, B] of centred embeddings [B, D]."""
    flat = embeddings.flatten(1).float()
    rows = F.normalize(flat - flat.mean(dim=0), dim=1)
    return rows @ rows.T


class Similar(branch.Branch):
    """A branch that remembers its virtual batches' cosines."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        layer = self.network.get_submodule(classifier_layer(self.network))
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.embeddings = inputs[0]

    def _virtual_logits(self, epoch: int) -> torch.Tensor:
        found = COSINES[self.task.name] = []
        plain = self._logits

        def noted(windows: torch.Tensor) -> torch.Tensor:
            logits = plain(windows)
            found.append(cosines(self.embeddings).clone())
            return logits

        self._logits = noted
        try:
            return super()._virtual_logits(epoch)
        finally:
            del self._logits

    def distil(self, *arguments: Any, **options: Any) -> None:
        """Learn from both."""
        global current
        current, self.batch = self, 0
        super().distil(*arguments, **options)


def loss_with_similarity(logits: torch.Tensor, *arguments: Any, **options: Any) -> Any:
    """Return Eq. 5 with the term added."""
    loss, ce, kl = plain_loss(logits, *arguments, **options)
    own = cosines(current.embeddings)
    teacher = torch.stack([found[current.batch] for found in COSINES.values()]).mean(dim=0)
    current.batch += 1
    term = (own - teacher.clone()).square().mean()
    return loss + WEIGHT * term, ce, kl


cohort.Branch = Similar
losses.distillation_loss = loss_with_similarity  # branch.py calls it by its module

if __name__ == "__main__":
    from run_grid import arguments

    from mrkd_ray.cli import main

    main(["grid", *arguments(sys.argv[1:])])
