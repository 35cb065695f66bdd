"""Carries out a plan: a live model, a method of training it, and the trace that is left."""

from __future__ import annotations

import importlib
import io
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from inbackward_conformance import hazardous_models, layer_graph, models, unusual_parameters
from inbackward_conformance.events import Attach
from inbackward_conformance.outcome import NotOffered, NotRun
from inbackward_conformance.plan import ALL, Assignment, Group, Plan, TensorOption
from inbackward_conformance.trace import Raised, Trace, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch.optim import Optimizer

    from inbackward_conformance.adapter import BoundAssignment
    from inbackward_conformance.events import Event, Scheduler
    from inbackward_conformance.trace import State


CATALOGUES = (models, hazardous_models, unusual_parameters, layer_graph)


class Method(Protocol):
    """How a model is trained: by the standard loop, or by an implementation."""

    def attach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Give optimizers to parameters."""

    def backward(self, model: nn.Module, compute_loss: Callable[[], Tensor], **kwargs: Any) -> None:
        """Run backward; when it returns, hooked optimizers have stepped and their gradients are freed."""

    def step_by_hand(self, model: nn.Module) -> None:
        """Step and zero the optimizers that were attached without a hook."""

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return the optimizers in use; raises `NotOffered` where they are not to be had."""

    def state_of(self, optimizer: Optimizer, param: Tensor) -> State:
        """Return the state that one of them holds for a parameter."""

    def accumulate(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run backward where gradients are to be left for the next one."""

    def reattach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Follow the model, attached to before, to new Parameter objects that sharding has made."""

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module, wrapped in DistributedDataParallel."""

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, optimizer: BoundAssignment, params: list[Any] | None
    ) -> None:
        """Register a communication hook, and an optimizer to step behind it; `params`: None, or those it steps."""

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard the module by FSDP2."""

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module, wrapped in FSDP1."""

    def schedule(self, module: nn.Module, scheduler: Scheduler) -> list[Any]:
        """Return started schedulers, to be stepped by `step()`, over the optimizers of `module`."""

    def state_dict(self, model: nn.Module) -> Any:
        """Return the states of all optimizers, for a checkpoint."""

    def load_state_dict(self, model: nn.Module, state: Any) -> None:
        """Load what `state_dict` returned."""

    def detach(self, model: nn.Module) -> None:
        """Make an ordinary model of it again; raises `NotOffered` where that is not to be had."""


class Run:
    """One live training of a plan's model by one method.

    Attributes:
        wrapper: what forward goes through; None: the model itself.
        attached: whether the assignments of the plan were made.
        trace: what is left of it so far.
    """

    def __init__(self, plan: Plan, method: Method, device: str, rank: int = 0) -> None:
        self.plan = plan
        self.method = method
        self.rank = rank
        self.wrapper: nn.Module | None = None
        self.attached = False
        self.device = torch.device(device)
        self.model = build_model(plan, self.device)
        self.dtype = _dtype(plan)
        self.schedules: list[Any] = []
        self.saved = io.BytesIO()
        self.losses: list[Tensor | None] = []
        self._batches_drawn = 0
        self.trace = Trace(start=take_snapshot("the start", self.model, []))

    def let_happen(self, event: Event) -> None:
        """Carry out one more event, and add to the trace; an error that it raises ends the run."""
        name = f"event {len(self.trace.snapshots)}, {event!r}"
        try:
            event.happen(self)
        except (NotOffered, NotRun):
            raise
        except Exception as error:  # noqa: BLE001 (whatever an implementation raises is an observation)
            attaching = len(event.assignments(self.plan)) if isinstance(event, Attach) else 0
            self.trace.raised = Raised.observe(error, name, attaching=attaching)
        listed = _listed(self.method, self.model)
        self.trace.snapshots.append(take_snapshot(name, self.model, listed, self.method.state_of))

    def next_batch(self) -> tuple[Tensor, ...]:
        """Draw the next batch; its values depend on seed, count of batches and rank alone."""
        self._batches_drawn += 1
        generator = torch.Generator().manual_seed(1000 * (self.plan.seed + 1000 * self.rank) + self._batches_drawn)
        batch: tuple[Tensor, ...] = self.model.batch(generator)  # type: ignore[operator]
        return tuple(x.to(self.device, self.dtype if x.is_floating_point() else None) for x in batch)

    def loss(
        self, batch: tuple[Tensor, ...], skip: tuple[str, ...] = (), forward: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Return the mean squared absolute value of the output of the model, or of `forward`: a real scalar."""
        output: Tensor = (forward or self.wrapper or self.model)(*batch, **({"skip": skip} if skip else {}))
        return (output * output.conj()).real.mean() if output.is_complex() else (output * output).mean()

    def bind(self, assignment: Assignment) -> BoundAssignment:
        """Look up what the assignment names; options and lists are fresh objects each time."""
        params = self._params(assignment)
        optimizer_class = find_optimizer_class(assignment.optimizer)
        return optimizer_class, params, live_options(assignment.options), assignment.hook

    def rebuild(self) -> None:
        """Replace the model by one that is built anew, with other initial values; nothing is attached to it."""
        with torch.random.fork_rng():
            self.model = build_model(self.plan, self.device)

    def attach_to_new_parameters(self) -> None:
        """Let the method follow to the Parameter objects that sharding has made."""
        if self.attached:
            self.method.reattach(self.model, [self.bind(assignment) for assignment in self.plan.assignments])

    def another_optimizer(self) -> Optimizer:
        """Return an ordinary optimizer over all parameters that neither plan nor method knows of."""
        return torch.optim.SGD(self.model.parameters(), lr=1.0)

    def _params(self, assignment: Assignment) -> Iterable[Any]:
        if assignment.params == ALL:
            return self.model.named_parameters() if assignment.named else self.model.parameters()
        return [
            {"params": self._lookup(item.params), **live_options(item.options)}
            if isinstance(item, Group)
            else self.model.get_parameter(item)
            for item in assignment.params
        ]

    def _lookup(self, names: Iterable[str]) -> list[nn.Parameter]:
        return [self.model.get_parameter(name) for name in names]


def run(plan: Plan, method: Method, device: str = "cpu", rank: int = 0) -> Trace:
    """Carry out `plan` with `method` and return the trace; an error that the run raises ends the trace.

    The global random state is as before afterwards, and the same at the start of every run of the plan.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_random_numbers(plan.seed, device)
        this = Run(plan, method, device, rank)
        for event in (*plan.before, Attach(), *plan.events):
            this.let_happen(event)
            if this.trace.raised:
                break
    return this.trace


def seed_random_numbers(seed: int, device: str) -> None:
    """Seed what a run on `device` draws from.

    `torch.manual_seed` also leaves a call, with the stack that it comes from, for each kind of accelerator that is not
    in use yet: where there is none, they cost a tenth of the time of a case, and pile up.
    """
    if device == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def build_model(plan: Plan, device: torch.device) -> nn.Module:
    """Build the plan's model: cast, shared and frozen as the plan says."""
    model = model_class(plan)(*plan.arguments).to(device, _dtype(plan))
    for name, source in plan.shared:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(source))
    for name in plan.frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


def model_class(plan: Plan) -> type[nn.Module]:
    """Return the class of the catalogue that the plan names."""
    catalogue = next(module for module in CATALOGUES if hasattr(module, plan.model))
    found: type[nn.Module] = getattr(catalogue, plan.model)
    return found


def find_optimizer_class(name: str) -> type[Optimizer]:
    """Return the class in `torch.optim` of that name, or the one at `package.module:Class`."""
    module, _, attribute = name.rpartition(":")
    found: type[Optimizer] = getattr(importlib.import_module(module or "torch.optim"), attribute)
    return found


def live_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as an optimizer takes them: every `TensorOption` a new tensor."""
    return {
        key: torch.tensor(value.value) if isinstance(value, TensorOption) else value for key, value in options.items()
    }


def _dtype(plan: Plan) -> torch.dtype | None:
    return getattr(torch, plan.dtype) if plan.dtype else None


def _listed(method: Method, model: nn.Module) -> list[Optimizer] | None:
    try:
        return method.optimizers(model)
    except NotOffered:
        return None
