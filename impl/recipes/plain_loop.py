"""A loop of your own: parameter groups, a scheduler, two micro-batches a step, clipping by the total norm."""

# /// script
# dependencies = ["torch>=2.13"]
# ///

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

import inbackward

MAX_NORM = 0.1
STEPS = torch.randn(6, 2, 4, 8, generator=torch.Generator().manual_seed(1))  # of two micro-batches each


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer, LRScheduler]:
    """Makes a model, an optimizer that decays weights and no biases, and a scheduler."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
    weights = [param for param in model.parameters() if param.dim() > 1]
    biases = [param for param in model.parameters() if param.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    return model, optimizer, CosineAnnealingLR(optimizer, len(STEPS))


def loss_of(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Computes the loss of one of two micro-batches."""
    output: torch.Tensor = model(batch)
    return output.square().mean() / 2


def train() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Trains with steps inside backward."""
    model, optimizer, scheduler = build()
    handle = inbackward.step_in_backward(optimizer)
    for first, last in STEPS:
        with handle.accumulate():
            loss_of(model, first).backward()
        inbackward.backward(loss_of(model, last), optimizer, max_norm=MAX_NORM)
        scheduler.step()
    return model, optimizer


def train_by_the_standard_loop() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Trains with `step()` and `zero_grad()` after backward."""
    model, optimizer, scheduler = build()
    for first, last in STEPS:
        loss_of(model, first).backward()
        loss_of(model, last).backward()
        params = [param for group in optimizer.param_groups for param in group["params"]]
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return model, optimizer


def main() -> None:
    """Compares parameters and the states of the optimizers, bit by bit."""
    (model, optimizer), (other_model, other_optimizer) = train(), train_by_the_standard_loop()
    torch.testing.assert_close(model.state_dict(), other_model.state_dict(), rtol=0, atol=0)
    mine, others = optimizer.state_dict(), other_optimizer.state_dict()
    torch.testing.assert_close(mine["state"], others["state"], rtol=0, atol=0)
    print(f"plain loop: {len(STEPS)} steps inside backward, equal to the standard loop bit by bit")


if __name__ == "__main__":
    main()
