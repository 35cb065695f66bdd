"""The public functions."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inbackward import _engine
from inbackward._assignment import Assignment
from inbackward._attachment import attachment_of
from inbackward._build import one_optimizer_each
from inbackward._ranks import refuse_flattened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.optim import Optimizer
    from torch.optim.optimizer import ParamsT


def apply_optimizer_in_backward(
    optimizer_class: type[Optimizer],
    params: ParamsT,
    optimizer_kwargs: Mapping[str, Any],
    register_hook: bool = True,
) -> None:
    """Makes every `backward()` step these parameters and free their gradients.

    Each parameter gets an optimizer of its own, `optimizer_class([param], **optimizer_kwargs)`. It steps as soon as
    the parameter's gradient is complete and all of the user's hooks have seen it; then `param.grad` is None. Several
    calls may name one parameter: its optimizers step in the order of the calls. Everything is checked, and every
    optimizer built, before anything is attached.

    Where the gradients' memory is not saved: a parameter whose memory something else still uses when its gradient is
    complete (`param.detach()` elsewhere in the graph, a kept `state_dict()`, views into one flat buffer, a graph that
    is retained) is stepped at the end of that backward, since the graph may yet read it. The result is the same.
    At the end of a backward that reached any parameter of a call, those that still hold a gradient, from before the
    call perhaps, are stepped as well, as one optimizer over all of them would.

    What is out of sight: code that runs inside backward and reads a parameter's value on its own (a custom autograd
    Function that looks at `module.weight`, a checkpointed function that uses `param.detach()`) may find it stepped.

    To train with an optimizer of your own, `step_in_backward` takes less time, and no scheduler for each parameter.

    Args:
        optimizer_class: A subclass of `torch.optim.Optimizer` whose `step()` needs no closure.
        params: Whatever `torch.optim` takes: an iterable of leaf tensors, of `(name, tensor)` pairs, or of dicts,
            that is groups with options of their own. Frozen parameters may be among them; integer ones, which can
            have no gradient, are left alone.
        optimizer_kwargs: The options. They are copied for each optimizer, so a tensor lr is shared with nobody.
        register_hook: False for optimizers that are listed and left to the caller to step. When another call with
            True names the parameter, before or after, all of its optimizers step inside backward.

    Raises:
        TypeError: `optimizer_class` is no optimizer class or cannot step without a closure; `optimizer_kwargs` is no
            mapping; a parameter is no tensor.
        ValueError: A parameter is no leaf, or is in two groups; there is no parameter; one belongs to an FSDP1 module
            that `wrap_fsdp` has not made; a small copy of the optimizer shows that it mixes parameters, draws random
            numbers, keeps state in its groups or attributes, or moves parameters without gradient.
        RuntimeError: Called inside backward.
        Exception: Whatever the optimizer class raises for these options and parameters.
    """
    _engine.refuse_in_backward("attach optimizers")
    built = one_optimizer_each(optimizer_class, params, optimizer_kwargs)
    for param, _ in built:
        refuse_flattened(param)
    Assignment(hooked=register_hook).attach(built)


def get_in_backward_optimizers(module: nn.Module) -> list[Optimizer]:
    """Lists the optimizers attached to a module's parameters, for schedulers and checkpoints.

    Returns:
        The optimizers in the order of `module.parameters()`, those of one parameter in the order in which they step.
        They are always the same objects.

    Raises:
        TypeError: `module` is no module.
    """
    _expect(nn.Module, module, "For one parameter, ask optimizers_of(param).")
    of_each = [optimizers_of(param) for param in module.parameters()]
    before: defaultdict[int, list[Optimizer]] = defaultdict(list)
    for optimizers in of_each:
        for earlier, later in pairwise(optimizers):
            before[id(later)].append(earlier)
    listed: dict[int, Optimizer] = {}

    def add(optimizer: Optimizer) -> None:
        if id(optimizer) not in listed:
            for earlier in before[id(optimizer)]:  # another parameter may have one that this one has not
                add(earlier)
            listed[id(optimizer)] = optimizer

    for optimizer in chain.from_iterable(of_each):
        add(optimizer)
    return [*listed.values()]


def optimizers_of(param: torch.Tensor) -> list[Optimizer]:
    """Lists the optimizers attached to one parameter, in the order in which they were attached; none is no error.

    Raises:
        TypeError: `param` is no tensor.
    """
    _expect(torch.Tensor, param, "For a module, ask get_in_backward_optimizers(module).")
    attachment = attachment_of(param)
    return [] if attachment is None else list(attachment.optimizers.values())


def detach(module_or_params: nn.Module | torch.Tensor | Iterable[torch.Tensor]) -> None:
    """Makes parameters ordinary again: backward leaves them alone and their gradients in place.

    Optimizers that were listed before go on to exist as ordinary ones, with their state. Parameters to which nothing
    is attached may be among the given; attaching again works.

    Args:
        module_or_params: A module, a parameter, or an iterable of parameters.

    Raises:
        TypeError: One of the parameters is no tensor; nothing is detached then.
        RuntimeError: Called inside backward.
    """
    _engine.refuse_in_backward("detach optimizers")
    for param in _params_of(module_or_params, "detach"):
        attachment = attachment_of(param)
        if attachment is not None:
            attachment.release()


def declare_local(module_or_params: nn.Module | torch.Tensor | Iterable[torch.Tensor]) -> None:
    """Says that each of several ranks trains these parameters on its own gradients, which nothing averages.

    With `torch.distributed` initialized for several ranks, a parameter whose gradient comes while neither `wrap_ddp`
    nor another call has taken it over is refused; one declared local steps as in a single process. Call it after
    `step_in_backward` or `apply_optimizer_in_backward`. What DDP was told to ignore needs no declaration.

    Args:
        module_or_params: A module, a parameter, or an iterable of parameters.

    Raises:
        TypeError: One of the parameters is no tensor.
        ValueError: Nothing is attached to one of them; nothing is declared then.
    """
    attachments = [attachment_of(param) for param in _params_of(module_or_params, "declare_local")]
    found = [attachment for attachment in attachments if attachment is not None]
    if len(found) < len(attachments):
        msg = "To some of these parameters nothing is attached. Hand an optimizer over before declare_local."
        raise ValueError(msg)
    for attachment in found:
        attachment.is_local = True


def _params_of(
    module_or_params: nn.Module | torch.Tensor | Iterable[torch.Tensor], function: str
) -> list[torch.Tensor]:
    if isinstance(module_or_params, nn.Module):
        return [*module_or_params.parameters()]
    if isinstance(module_or_params, torch.Tensor):
        return [module_or_params]
    params = [*module_or_params]
    for param in params:
        _expect(torch.Tensor, param, f"Give {function} a module, a parameter, or an iterable of parameters.")
    return params


def _expect(kind: type, given: object, remedy: str) -> None:
    if not isinstance(given, kind):
        msg = f"Expected a torch {kind.__name__}, not {given!r}. {remedy}"
        raise TypeError(msg)
