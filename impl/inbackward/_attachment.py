"""What is attached to a parameter, and when it steps.

An attachment must die with its model, be found by its parameter, and end up in no saved file and no copy. So a tensor
hook of the parameter owns it: Python's garbage collector sees through those, unlike through post-accumulate-grad
hooks, and neither `torch.save` nor `deepcopy` follows them. Whatever else refers to an attachment does so weakly.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from inbackward import _engine
from inbackward._ranks import is_sharded, reduction_of, refuse_unaccounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    _Hook = Callable[[torch.Tensor], None]

# By id of the parameter. An attachment holds its parameter, so an id that is found is never that of a newer tensor.
_attachments: weakref.WeakValueDictionary[int, Attachment] = weakref.WeakValueDictionary()


def attachment_of(param: torch.Tensor) -> Attachment | None:
    """What is attached to the parameter; None if nothing is."""
    return _attachments.get(id(param))


class Attachment:
    """The optimizers of one parameter, in the order in which they were attached and step.

    Attributes:
        param: The parameter.
        optimizers: Its optimizers; they hold nothing but this parameter.
        assignments: The calls with `register_hook=True` that the parameter was in.
        is_local: Whether the user has said that this rank trains the parameter on its own gradient.
    """

    __torch_unserializable__ = True  # as torch.utils.hooks.unserializable_hook marks a function: no warning on saving

    def __init__(self, param: torch.Tensor) -> None:
        self.param = param
        self.optimizers: list[Optimizer] = []
        self.assignments: list[Assignment] = []
        self.is_local = False
        self._pass: _engine.Pass | None = None
        self._is_due = False
        self._is_sharded = is_sharded(param)
        self._trigger: RemovableHandle | None = None
        self._ownership = self._register(param.register_hook, self)
        # torch.utils.swap_tensors, which some conversions of a module use, would drop the hooks without a word. It
        # refuses a tensor that has a weak reference.
        self._no_swap = weakref.ref(param)
        _attachments[id(param)] = self

    def __call__(self, grad: torch.Tensor) -> None:
        """Nothing, as a hook: the hook is there to own the attachment."""

    @property
    def hooked(self) -> bool:
        """Whether the optimizers step inside backward."""
        return self._trigger is not None

    @property
    def is_reduced(self) -> bool:
        """Whether a reduction over several ranks says when the parameter steps."""
        reduction = reduction_of(self.param)
        return not self.is_local and reduction is not None and not reduction.is_local(self.param)

    def hook(self) -> None:
        """Makes the optimizers step inside backward."""
        itself = weakref.ref(self)

        def gradient_is_accumulated(_: torch.Tensor) -> None:
            attachment = itself()
            if attachment is not None:
                attachment.fire()

        self._trigger = self._register(self.param.register_post_accumulate_grad_hook, gradient_is_accumulated)

    def unhook(self) -> None:
        """Takes `hook` back."""
        if self._trigger is not None:
            self._trigger.remove()
            self._trigger = None

    def release(self) -> None:
        """Makes the parameter an ordinary one again."""
        self.unhook()
        self._ownership.remove()
        _attachments.pop(id(self.param), None)

    def move_to(self, param: torch.Tensor) -> None:
        """Gives what is attached here to a parameter that has taken this one's place."""
        moved = Attachment(param)
        moved.optimizers, moved.assignments, moved.is_local = self.optimizers, self.assignments, self.is_local
        for optimizer in moved.optimizers:
            for group in optimizer.param_groups:
                group["params"] = [param if each is self.param else each for each in group["params"]]
        for assignment in moved.assignments:
            assignment.replace(self, moved)
        if self.hooked:
            moved.hook()
        self.release()

    @_engine.run_eagerly
    def fire(self) -> None:
        """Has the parameter stepped, its gradient being accumulated, once all hooks of the user have run.

        Raises:
            RuntimeError: The gradient comes for the second time in one backward, or under compiled autograd; or there
                are several ranks, and nobody has answered for bringing their gradients together.
        """
        by_fsdp = self._is_sharded and _engine.in_backward() and not _engine.is_accumulating()
        if not self.is_local and not self._is_sharded:
            reduction = reduction_of(self.param)
            if reduction is None:
                refuse_unaccounted(self.param)
            elif not reduction.is_local(self.param):
                reduction.gradient_is_accumulated(self.param)
                return
        node = None if by_fsdp else _engine.current_node()
        now = _engine.current_pass()
        if self._pass is not None and self._pass.running:
            raise RuntimeError(_twice(self))
        self._pass = now
        for assignment in self.assignments:
            now.at_end[assignment.step_the_rest] = None
        if node is None:
            self._step_in_hook(now)
            return
        self._is_due = True

        # Hooks of the node run after all post-accumulate-grad hooks. One that stayed there would be lost with the
        # node, which torch replaces when the dtype changes.
        def all_hooks_have_run(*_: object) -> None:
            handle.remove()
            self._settle()

        handle = node.register_hook(all_hooks_have_run)

    def _step_in_hook(self, now: _engine.Pass) -> None:
        # The graph reads the gathered parameter, never the shard. But hooks of the user may be called after this one.
        now.turns_to_wait = 1  # FSDP2 has its own end of backward
        if self._trigger is None or _engine.is_last_hook(self.param, self._trigger):
            self.step()
        else:
            now.at_end[self._hook_last] = None

    def _hook_last(self, _: _engine.Pass) -> None:
        if self.hooked:
            self.unhook()
            self.hook()

    def _settle(self) -> None:
        # Not due: an earlier pass over this graph raised before it came here, and left its hook behind.
        if self._is_due:
            self._is_due = False
            # Otherwise something later in this pass may still read the parameter: it is stepped at the end.
            if not _engine.shares_memory(self.param):
                self.step()

    def step(self) -> None:
        """Steps all optimizers and frees the gradient, as the standard loop does after backward."""
        if self.param.grad is None:
            return
        with torch.enable_grad():  # as after backward; optimizers of torch turn it off for themselves
            for optimizer in self.optimizers:
                optimizer.step()
        self.param.grad = None

    def is_claimed_by_other(self, run: _engine.Pass) -> bool:
        """Whether another running pass, one of another thread, has accumulated into the parameter."""
        return self._pass is not None and self._pass.running and self._pass.outermost is not run

    def _register(self, register: Callable[[_Hook], RemovableHandle], hook: _Hook) -> RemovableHandle:
        # A frozen parameter is attached like any other, as an ordinary optimizer holds it: it may thaw.
        frozen = not self.param.requires_grad
        try:
            if frozen:
                self.param.requires_grad_(True)
            return register(hook)
        finally:
            if frozen:
                self.param.requires_grad_(False)


class Assignment:
    """The parameters of one call that attached with hooks.

    At the end of a pass that has reached any of them, each that still holds a gradient is stepped: as `step()` of one
    optimizer over them all would. These are the parameters whose step was put off, and those whose gradient is from
    before.
    """

    def __init__(self, attachments: Iterable[Attachment]) -> None:
        self._attachments = [weakref.ref(attachment) for attachment in attachments]

    def replace(self, old: Attachment, new: Attachment) -> None:
        """Has another attachment in the place of one."""
        self._attachments = [weakref.ref(new) if reference() is old else reference for reference in self._attachments]

    def step_the_rest(self, run: _engine.Pass) -> None:
        """Steps every parameter that holds a gradient."""
        for reference in self._attachments:
            attachment = reference()
            if attachment is None or attachment.param.grad is None or not attachment.hooked:
                continue
            if not attachment.is_reduced and not attachment.is_claimed_by_other(run):
                attachment.step()


def _twice(attachment: Attachment) -> str:
    param = attachment.param
    names = attachment.optimizers[0].param_groups[0].get("param_names")
    what = f"parameter {names[0]!r}" if names else f"a parameter with {param.numel()} elements, {param.dtype}"
    return (
        f"The gradient of {what} came twice in one backward, and the parameter was already stepped with the first "
        f"part, as others may have been: the optimizer in backward cannot give the standard result here. Reentrant "
        f"activation checkpointing of a parameter that is used more than once does this: pass use_reentrant=False to "
        f"torch.utils.checkpoint.checkpoint. So does a backward() inside a hook or a custom autograd Function, or in "
        f"another thread: use an ordinary optimizer for this parameter (inbackward.detach)."
    )
