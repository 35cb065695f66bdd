"""The Trainer of transformers: a scheduler, accumulated gradients, clipping by the total norm, the norm in its log."""

# /// script
# dependencies = ["torch>=2.13", "transformers==5.24.0", "accelerate==1.15.0"]
# ///

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import inbackward

TOKENS = torch.randint(0, 32, (20, 8), generator=torch.Generator().manual_seed(1))
ROWS = [{"input_ids": row, "labels": row} for row in TOKENS]

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class InBackwardTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose optimizer steps inside backward."""

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """Hands over the optimizer that the Trainer makes or was given."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args)
        self.handed, self.handle = optimizer, inbackward.step_in_backward(optimizer)
        self.accelerator.backward = self.backward
        return optimizer

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulates when the Trainer does, and clips by `max_grad_norm`, which 0 turns off."""
        if self.accelerator.sync_gradients:
            max_norm = self.args.max_grad_norm or float("inf")
            self.grad_norm = inbackward.backward(loss, self.handed, max_norm=max_norm, params=self.model.parameters())
        else:
            with self.handle.accumulate():
                loss.backward()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs the norm; the Trainer finds no gradients after backward, and would log 0."""
        if "grad_norm" in logs and self.grad_norm is not None:
            logs["grad_norm"] = float(self.grad_norm)
        super().log(logs, start_time)


def train(trainer_class: type[Any]) -> Any:
    """Trains a small model with dropout."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            learning_rate=1e-2,
            max_grad_norm=0.5,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        model = GPT2LMHeadModel(config)
        trainer = trainer_class(model, arguments, train_dataset=ROWS)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return trainer


def main() -> None:
    """Compares parameters, the states of the optimizers and the logged norms with those of `Trainer`, bit by bit."""
    mine, others = train(InBackwardTrainer), train(Trainer)
    torch.testing.assert_close(mine.model.state_dict(), others.model.state_dict(), rtol=0, atol=0)
    states = [trainer.optimizer.state_dict()["state"] for trainer in (mine, others)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    norms = [[entry.get("grad_norm") for entry in trainer.state.log_history] for trainer in (mine, others)]
    assert norms[0] == norms[1], norms
    steps = mine.state.global_step
    print(f"transformers {transformers.__version__}: {steps} steps, equal to the standard loop bit by bit")


if __name__ == "__main__":
    main()
