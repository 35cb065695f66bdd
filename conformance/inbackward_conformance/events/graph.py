"""What is done with the graph of a forward, beside `loss.backward()` once and at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from torch import Tensor

    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class Forward(Printable):
    """Forward alone; the graph is kept for `BackwardThrough`."""

    skip: tuple[str, ...] = ()

    def happen(self, run: Run) -> None:
        """Keep the loss."""
        run.losses.append(run.loss(run.next_batch(), skip=self.skip))

    def spell(self, script: Script) -> None:
        """Keep the loss."""
        script.draw_batch()
        script.keep_loss(script.loss(self.skip))


@dataclass(frozen=True, repr=False)
class BackwardThrough(Printable):
    """Backward through the graph that a `Forward` has kept, and a step.

    Attributes:
        forward: which of them, counted from 0.
        retain_graph: whether another backward goes through it later.
    """

    forward: int = 0
    retain_graph: bool = False

    def happen(self, run: Run) -> None:
        """Train for one step."""
        loss = run.losses[self.forward]
        if not self.retain_graph:
            run.losses[self.forward] = None
        kwargs = {"retain_graph": True} if self.retain_graph else {}
        run.method.backward(run.model, lambda: loss, **kwargs)  # type: ignore[arg-type,return-value]

    def spell(self, script: Script) -> None:
        """Train for one step."""
        script.loop.backward(script, script.kept_loss(self.forward), "retain_graph=True" * self.retain_graph)


@dataclass(frozen=True, repr=False)
class ComputeGradients(Printable):
    """Compute the gradients of all parameters, and do nothing with them.

    Attributes:
        by: `torch.autograd.grad` or `torch.func.grad`.
    """

    by: str = "torch.autograd.grad"

    def happen(self, run: Run) -> None:
        """Leave the model as it is."""
        import torch

        batch = run.next_batch()
        if self.by == "torch.autograd.grad":
            torch.autograd.grad(run.loss(batch), list(run.model.parameters()))
        else:
            params = dict(run.model.named_parameters())
            torch.func.grad(lambda given: _functional_loss(run, given, batch))(params)

    def spell(self, script: Script) -> None:
        """Leave the model as it is."""
        script.draw_batch()
        if self.by == "torch.autograd.grad":
            script.add(f"torch.autograd.grad({script.loss()}, list(model.parameters()))")
        else:
            functional = script.loss(forward="torch.func.functional_call(model, given, batch)")
            script.add(f"torch.func.grad(lambda given: {functional})(dict(model.named_parameters()))")


@dataclass(frozen=True, repr=False)
class FunctionalBackward(Printable):
    """Backward of `torch.func.functional_call` with the model's own parameters.

    Attributes:
        replaced: parameters in whose place it is called with a copy, a leaf of its own.
    """

    replaced: tuple[str, ...] = ()

    def happen(self, run: Run) -> None:
        """Train for one step."""
        params = {
            name: param.detach().clone().requires_grad_() if name in self.replaced else param
            for name, param in run.model.named_parameters()
        }
        batch = run.next_batch()
        run.method.backward(run.model, lambda: _functional_loss(run, params, batch))

    def spell(self, script: Script) -> None:
        """Train for one step."""
        script.draw_batch()
        script.add("params = dict(model.named_parameters())")
        for name in self.replaced:
            script.add(f"params[{name!r}] = params[{name!r}].detach().clone().requires_grad_()")
        script.loop.backward(script, script.loss(forward="torch.func.functional_call(model, params, batch)"))


@dataclass(frozen=True, repr=False)
class PenalizedBackward(Printable):
    """Backward of a loss to which the square of a gradient is added: a backward through a backward.

    Attributes:
        of: whether that is the gradient of the `inputs` or of the `parameters`.
    """

    of: str

    def happen(self, run: Run) -> None:
        """Train for one step."""
        import torch

        batch = tuple(x.requires_grad_() for x in run.next_batch())
        penalized = batch if self.of == "inputs" else tuple(run.model.parameters())

        def compute_loss() -> Tensor:
            loss = run.loss(batch)
            grads = torch.autograd.grad(loss, penalized, create_graph=True)
            return loss + torch.stack([grad.square().sum() for grad in grads]).sum()

        run.method.backward(run.model, compute_loss)

    def spell(self, script: Script) -> None:
        """Train for one step."""
        script.draw_batch()
        penalized = "batch.requires_grad_()" if self.of == "inputs" else "list(model.parameters())"
        script.add(f"penalized = {penalized}", f"loss = {script.loss()}")
        script.add("grads = torch.autograd.grad(loss, penalized, create_graph=True)")
        script.loop.backward(script, "(loss + torch.stack([grad.square().sum() for grad in grads]).sum())")


@dataclass(frozen=True, repr=False)
class AutocastBackward(Printable):
    """Backward of a forward that ran under autocast."""

    dtype: str

    def happen(self, run: Run) -> None:
        """Train for one step."""
        import torch

        batch = run.next_batch()

        def compute_loss() -> Tensor:
            with torch.autocast(run.device.type, getattr(torch, self.dtype)):
                return run.loss(batch)

        run.method.backward(run.model, compute_loss)

    def spell(self, script: Script) -> None:
        """Train for one step."""
        script.draw_batch()
        with script.block(f"with torch.autocast(batch.device.type, torch.{self.dtype}):"):
            script.add(f"loss = {script.loss()}")
        script.loop.backward(script, "loss")


@dataclass(frozen=True, repr=False)
class Compile(Printable):
    """Compile the model from here on: `model.compile(backend=…)`."""

    backend: str

    def happen(self, run: Run) -> None:
        """Forget what other runs have compiled."""
        import torch

        torch._dynamo.reset()  # noqa: SLF001 (a module that torch documents, whatever its name)
        run.model.compile(backend=self.backend)

    def spell(self, script: Script) -> None:
        """Forget what the other loop has compiled."""
        script.add("torch._dynamo.reset()", f"model.compile(backend={self.backend!r})")


def _functional_loss(run: Run, params: dict[str, Tensor], batch: tuple[Tensor, ...]) -> Tensor:
    from torch.func import functional_call

    return run.loss(batch, forward=lambda *inputs: functional_call(run.model, params, inputs))
