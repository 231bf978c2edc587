"""A plain training step on one batch that never changes: what a branch's epoch is held against."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mrkd_ray.method.losses import cross_entropy
from mrkd_ray.networks.catalogue import build


def constant_step(
    network: str,
    classes: int,
    shape: tuple[int, int, int, int],
    *,
    device: str = "cpu",
    bf16: bool = False,
    channels_last: bool = True,
    compiled: bool = False,
) -> Callable[[], None]:
    """Return a step of a network's forward and backward pass and SGD on random windows."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = build(network, classes)[0].to(device).to(memory_format=layout).train()
    inputs = torch.randn(shape, device=device).contiguous(memory_format=layout)
    targets = torch.softmax(torch.randn(shape[0], classes, device=device), dim=1)
    optimiser = torch.optim.SGD(
        module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True
    )
    forward = torch.compile(module) if compiled else module

    def step() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            logits = forward(inputs)
        loss = cross_entropy(logits.float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
