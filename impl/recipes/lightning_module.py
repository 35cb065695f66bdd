"""Lightning, automatic optimization: a scheduler, accumulated gradients, clipping by the total norm, a checkpoint."""

# /// script
# dependencies = ["torch>=2.13", "lightning==2.6.6"]
# ///

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning  # type: ignore[import-not-found]
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import DataLoader, TensorDataset

import inbackward

MAX_NORM = 0.1
ROWS = TensorDataset(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)))  # 5 batches of 8

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")  # few workers, a short epoch


class Ordinary(lightning.LightningModule):  # type: ignore[misc]
    """A module as Lightning's documentation has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Computes the loss."""
        self.batch_idx = batch_idx
        output: torch.Tensor = self.model(batch[0])
        return output.square().mean()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Makes an optimizer and a scheduler."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [CosineAnnealingLR(optimizer, 4)]


class InBackward(Ordinary):
    """The same, with steps inside backward."""

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Hands the optimizer over."""
        optimizers, schedulers = super().configure_optimizers()
        self.handle = inbackward.step_in_backward(optimizers[0])
        return optimizers, schedulers

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulates when Lightning does, and clips in the place of `gradient_clip_val`."""
        is_last = (self.batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        if is_last:
            inbackward.backward(loss, self.trainer.optimizers, max_norm=MAX_NORM)
        else:
            with self.handle.accumulate():
                loss.backward()


def train(module: Ordinary, folder: str, epochs: int = 4, resumed: str | None = None, **options: Any) -> Any:
    """Trains a module, and leaves a checkpoint."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        accumulate_grad_batches=2,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(ROWS, batch_size=8), ckpt_path=resumed)
    trainer.save_checkpoint(Path(folder, "last.ckpt"))
    return trainer


def main() -> None:
    """Compares parameters and the states of the optimizers with those of the standard loop, bit by bit."""
    with tempfile.TemporaryDirectory() as folder:
        ordinary, module = Ordinary(), InBackward()
        theirs = train(ordinary, folder, gradient_clip_val=MAX_NORM)
        train(InBackward(), folder, epochs=2)
        mine = train(module, folder, resumed=str(Path(folder, "last.ckpt")))
    torch.testing.assert_close(module.state_dict(), ordinary.state_dict(), rtol=0, atol=0)
    (state,), (other_state,) = ([each.state_dict() for each in trainer.optimizers] for trainer in (mine, theirs))
    torch.testing.assert_close(state["state"], other_state["state"], rtol=0, atol=0)
    print(f"Lightning {lightning.__version__}: {mine.global_step} steps, equal to the standard loop bit by bit")


if __name__ == "__main__":
    main()
