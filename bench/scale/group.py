"""A process group of which rank 0 alone is there: its collectives return at once, and are told to who listens.

DistributedDataParallel cannot run backward on torch's own backend "fake", whose futures hold no tensors. A backend that
is written in Python is registered by a public call, and gets every collective, also those that DDP's reducer issues in
C++. One that this class lacks is an error of torch's.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import distributed
from torch.futures import Future

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Listener = Callable[[str, Tensor, Tensor], None]

BACKEND = "rank-zero"


class RankZero(distributed.ProcessGroup):
    """Rank 0 of a group whose other ranks are taken to hold the values of this one, and to add nothing to them.

    Of each method's several signatures this has the one that torch calls.

    Attributes:
        listen: Called for each collective with its name, what this rank gives, and where the result goes.
    """

    def __init__(self, _: Any, rank: int, size: int, __: Any) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]  # that with a store cannot be subclassed
        self.listen: Listener = _ignore
        self._name = ""

    def setGroupName(self, name: str) -> None:  # noqa: N802 -- torch's name
        """Keep the name, for which torch itself asks a backend."""
        self._name = name

    def getGroupName(self) -> str:  # noqa: N802 -- torch's name
        """Return the name, by which a device mesh finds the group."""
        return self._name

    def allreduce(self, tensors: list[Tensor], _: Any = None) -> distributed.Work:  # type: ignore[override]
        """Leave the values as they are."""
        for tensor in tensors:
            self.listen("all_reduce", tensor, tensor)
        return _Done(tensors)

    def broadcast(self, tensors: list[Tensor], _: Any = None) -> distributed.Work:  # type: ignore[override]
        """Leave the values as they are."""
        for tensor in tensors:
            self.listen("broadcast", tensor, tensor)
        return _Done(tensors)

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], _: Any = None
    ) -> distributed.Work:
        """Give every rank's place the values of this one."""
        for parts, given in zip(outputs, inputs, strict=True):
            self.listen("all_gather", given, given)
            for part in parts:
                part.copy_(given)
        return _Done(outputs)

    def all_gather_single(self, output: Tensor, given: Tensor, _: Any = None) -> distributed.Work:
        """Give every rank's place the values of this one."""
        self.listen("all_gather", given, output)
        output.view(self.size(), -1).copy_(given.clone().view(1, -1))  # which FSDP2 has in the output
        return _Done(output)

    def reduce_scatter_single(self, output: Tensor, given: Tensor, _: Any = None) -> distributed.Work:
        """Give this rank the part that is its own."""
        self.listen("reduce_scatter", given, output)
        output.view(-1).copy_(given.view(self.size(), -1)[0])
        return _Done(output)


class _Done(distributed.Work):
    """A collective that is over."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._future: Future[Any] = Future()
        self._future.set_result(result)

    def wait(self, timeout: Any = None) -> bool:
        return True

    def get_future(self) -> Future[Any]:
        return self._future


def _ignore(_: str, __: Tensor, ___: Tensor) -> None:
    pass


@contextmanager
def rank_zero_of(ranks: int) -> Iterator[RankZero]:
    """Initialize `torch.distributed` in a `with` block, as rank 0 of so many."""
    store = distributed.HashStore()  # type: ignore[attr-defined]  # documented, but not exported to mypy
    distributed.init_process_group(BACKEND, store=store, rank=0, world_size=ranks)
    try:
        group = distributed.group.WORLD
        assert isinstance(group, RankZero)
        yield group
    finally:
        distributed.destroy_process_group()


distributed.Backend.register_backend(BACKEND, RankZero, devices=["cpu"])
