"""What ranks are given, what each of them answers, and the process group in between."""

from __future__ import annotations

import gc
import importlib
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inbackward_conformance.outcome import CONFORMS, BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.ranks.stores import HashStore
from inbackward_conformance.training.classify_error import classify_error
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from inbackward_conformance.ranks.stores import Store

LARGEST_PATIENCE = 20.0

NOBODY_ELSE = 2
"""What `sys.getrefcount` says of an object that one local variable refers to: that, and its own argument."""

_STILL_IN_USE: list[object] = []
"""The process group of the last job, where something still referred to it when the job was over.

Who drops the last reference waits for the threads of the group. A callback of a future does so on such a thread, and
waits for itself: `Resource deadlock avoided`, and the process is gone (PowerSGD, in one case of eight). The frames of
an error do so on the main thread, with the interpreter's lock, which such a thread is waiting for: it hangs (after
`DistributedDataParallel` of a model with sparse gradients, in one case of ten). By the next job those threads have
nothing left to do.
"""

LOADED_LATE = ("torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict")


class Rank(NamedTuple):
    """Who carries out a job; every function on ranks has it as its first argument."""

    number: int
    world_size: int
    device: str


@dataclass(frozen=True)
class Job:
    """Something for the first `world_size` ranks to do together.

    Attributes:
        call: a function of a module, called with a `Rank` and `arguments` on each of them.
        seconds: the time that it may take.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    world_size: int
    device: str
    seconds: float

    @property
    def patience(self) -> float:
        """The time limit of a collective, in seconds: well below that of the job."""
        return min(LARGEST_PATIENCE, self.seconds / 3)


@dataclass(frozen=True)
class Answer:
    """What came of a job on one rank: what the call returned, or a finding where it raised."""

    value: Any = None
    finding: Finding = CONFORMS

    @property
    def summary(self) -> str:
        """One line on how the job ended there."""
        if self.finding != CONFORMS:
            return self.finding.detail
        if isinstance(self.value, Trace) and self.value.raised:
            return f"raised {self.value.raised.text}"
        return "had finished"


class JobRunner(Protocol):
    """Where jobs can be sent."""

    def run(self, job: Job) -> list[Answer]:
        """Return the answers, in the order of ranks.

        Raises:
            BrokenPromise: a rank hangs, or died.
            NotRun: there are not as many ranks here.
        """


def carry_out(job: Job, number: int, store: Store) -> Answer:
    """Do a job as rank `number`; `store` is for this job alone."""
    rank = Rank(number, job.world_size, _device(job.device, number))
    try:
        seed_random_numbers(0, rank.device)  # whatever the job before has left, and its grad mode
        with torch.enable_grad(), _process_group(job, rank, store):
            return Answer(job.call(rank, *job.arguments))
    except Exception as error:  # noqa: BLE001 (whatever is raised is an observation)
        return Answer(finding=classify_error(error))


def values_of(answers: Sequence[Answer]) -> list[Any]:
    """Return what the call returned, by rank.

    Raises:
        BrokenPromise: it raised on a rank, with the worst finding.
        NotOffered: the implementation does not offer something that the job needs.
        NotRun: a rank cannot do it.
    """
    worst = Outcome.worst(answer.finding.outcome for answer in answers)
    for number, answer in enumerate(answers):
        if answer.finding == CONFORMS or answer.finding.outcome is not worst:
            continue
        match worst:
            case Outcome.NOT_OFFERED:
                raise NotOffered(answer.finding.detail)
            case Outcome.NOT_RUN:
                raise NotRun(answer.finding.detail)
        raise BrokenPromise(replace(answer.finding, detail=f"rank {number}: {answer.finding.detail}", passed=False))
    return [answer.value for answer in answers]


def warm_up() -> None:
    """Have loaded what torch loads late, so that no case pays for it, and keep to one thread."""
    torch.set_num_threads(1)
    for module in LOADED_LATE:
        importlib.import_module(module)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    model = DistributedDataParallel(nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    torch.optim.SGD(model.parameters()).step()
    del model
    gc.collect()
    dist.destroy_process_group()


@contextmanager
def _process_group(job: Job, rank: Rank, store: Store) -> Iterator[None]:
    """Join the process group of a job, and leave it for good.

    Every job has a group of its own, so that nothing of an earlier one is still under way in it. A rank that raises
    leaves at once: its connections close, and the others, who wait for it, are told so.
    """
    _STILL_IN_USE.clear()
    try:
        dist.init_process_group(
            _backend(job),
            store=store,
            rank=rank.number,
            world_size=rank.world_size,
            timeout=timedelta(seconds=job.patience),
        )
        dist.barrier()  # else a rank that needs no other may be gone while another still connects
        yield
    finally:
        gc.collect()  # a wrapper that is still referred to keeps the connections open
        if dist.is_initialized():  # a rendezvous that failed may have left it so, or not
            group = dist.group.WORLD
            dist.destroy_process_group()
            if sys.getrefcount(group) > NOBODY_ELSE:
                _STILL_IN_USE.append(group)


def _backend(job: Job) -> str:
    """Nccl wants a GPU for each rank; gloo carries CUDA tensors too."""
    a_gpu_each = job.device == "cuda" and torch.cuda.device_count() >= job.world_size
    return "cpu:gloo,cuda:nccl" if a_gpu_each else "gloo"


def _device(device: str, number: int) -> str:
    if device != "cuda":
        return device
    index = number % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return f"cuda:{index}"
