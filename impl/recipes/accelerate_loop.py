"""Accelerate: a scheduler, accumulated gradients, clipping by the total norm."""

# /// script
# dependencies = ["torch>=2.13", "accelerate==1.15.0"]
# ///

from __future__ import annotations

import accelerate  # type: ignore[import-not-found]
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

import inbackward

MAX_NORM = 0.1
ROWS = TensorDataset(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)))  # 5 batches of 8


def train(*, in_backward: bool) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Trains with steps inside backward, or by Accelerate's usual loop."""
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if in_backward:
        handle = inbackward.step_in_backward(adamw)  # the optimizer itself, not what prepare() returns
    loader = DataLoader(ROWS, batch_size=8)
    model, optimizer, scheduler, loader = accelerator.prepare(model, adamw, CosineAnnealingLR(adamw, 12), loader)
    for _ in range(4):
        for (batch,) in loader:
            with accelerator.accumulate(model):
                loss = model(batch).square().mean()
                if not in_backward:
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), MAX_NORM)
                elif accelerator.sync_gradients:
                    loss = loss / accelerator.gradient_accumulation_steps  # as accelerator.backward does
                    inbackward.backward(loss, adamw, max_norm=MAX_NORM)
                else:
                    with handle.accumulate():
                        accelerator.backward(loss)
                optimizer.step()  # finds nothing to do in the first case; the scheduler asks whether it was called
                scheduler.step()
                optimizer.zero_grad()
    return model, adamw


def main() -> None:
    """Compares parameters and the states of the optimizers, bit by bit."""
    (model, optimizer), (other_model, other_optimizer) = train(in_backward=True), train(in_backward=False)
    torch.testing.assert_close(model.state_dict(), other_model.state_dict(), rtol=0, atol=0)
    mine, others = optimizer.state_dict(), other_optimizer.state_dict()
    torch.testing.assert_close(mine["state"], others["state"], rtol=0, atol=0)
    steps = int(mine["state"][0]["step"])
    print(f"Accelerate {accelerate.__version__}: {steps} steps, equal to the standard loop bit by bit")


if __name__ == "__main__":
    main()
