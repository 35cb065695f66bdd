"""The hooks of one parameter: one that owns what is attached to it, and one that is called for each gradient."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

from inbackward import _engine
from inbackward._ranks import is_sharded

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.utils.hooks import RemovableHandle

    from inbackward._bucket import Gate

    _Hook = Callable[[torch.Tensor], None]


class Owned(Protocol):
    """What is attached to a parameter."""

    def __call__(self, grad: torch.Tensor) -> None:
        """Refuses a gradient that nothing will accumulate, perhaps; the hook is there to own what is attached."""

    def fire(self) -> None:
        """Has the parameter stepped, its gradient being accumulated."""


class Hooks:
    """The hooks of one parameter.

    Attributes:
        trigger: The hook that is called once a gradient is accumulated; None if there is none.
    """

    __slots__ = ("_gate", "_no_swap", "_owned", "_ownership", "_param", "trigger")

    def __init__(self, param: torch.Tensor, owned: Owned) -> None:
        self._param = param
        self._owned = weakref.ref(owned)
        self._ownership: RemovableHandle = self._register(param.register_hook, owned)
        self._gate: Gate | None = None
        self.trigger: RemovableHandle | None = None
        self._no_swap: object = weakref.ref(param)  # see `inbackward._torch_calls`

    def listen(self, gate: Gate) -> None:
        """Has gradients accepted by the gate, or else fires; after all hooks that are there already."""
        self.listen_no_more()
        _engine.references_to_new_node()
        owned = self._owned
        current_task = _engine.current_task

        @_engine.run_eagerly
        def gradient_is_accumulated(param: torch.Tensor) -> None:
            if gate.task == current_task():
                gate.accept(param)
            elif (attachment := owned()) is not None:
                attachment.fire()

        self._gate = gate
        self.trigger = self._register(self._param.register_post_accumulate_grad_hook, gradient_is_accumulated)

    def listen_no_more(self) -> None:
        """Has nothing called for a gradient."""
        if self.trigger is not None:
            self.trigger.remove()
            self.trigger = None

    def listen_last(self) -> None:
        """Goes behind hooks that were registered meanwhile."""
        if self.trigger is not None and self._gate is not None:
            self.listen(self._gate)

    def remove(self) -> None:
        """Removes all hooks."""
        self.listen_no_more()
        self._ownership.remove()

    def begin_swap(self) -> None:
        """Lets the parameter be swapped."""
        self._no_swap = None

    def end_swap(self, *, swapped: bool) -> None:
        """Lets it be swapped no more, and registers the hooks anew if it was."""
        owned = self._owned()
        if swapped and owned is not None:
            self._register_anew(owned)
        self._no_swap = weakref.ref(self._param)

    def _register_anew(self, owned: Owned) -> None:
        param = self._param
        if is_sharded(param):
            _engine.call_hooks_again(param)  # as FSDP2 goes on calling them, those of the user too
            return
        gate = None if self.trigger is None else self._gate
        self.remove()
        _engine.forget_hooks(param)
        self._ownership = self._register(param.register_hook, owned)
        if gate is not None:
            self.listen(gate)

    def _register(self, register: Callable[[_Hook], RemovableHandle], hook: _Hook) -> RemovableHandle:
        # A frozen parameter is attached like any other, as an ordinary optimizer holds it: it may thaw.
        frozen = not self._param.requires_grad
        try:
            if frozen:
                self._param.requires_grad_(True)
            return register(hook)
        finally:
            if frozen:
                self._param.requires_grad_(False)
