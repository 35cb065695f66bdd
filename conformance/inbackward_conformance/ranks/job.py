"""Jobs, the answers of ranks, and the process group of a job."""

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

from inbackward_conformance import accelerator
from inbackward_conformance.outcome import CONFORMS, BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.raised_error import is_observation
from inbackward_conformance.ranks.stores import HashStore
from inbackward_conformance.training.classify_error import classify_error
from inbackward_conformance.training.global_state import restored_settings
from inbackward_conformance.training.random_numbers import seed_all_random_numbers
from inbackward_conformance.training.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from inbackward_conformance.ranks.stores import Store

MAX_COLLECTIVE_SECONDS = 20.0

UNSHARED_REFCOUNT = 2
"""The result of `sys.getrefcount` for an object with one reference, a local variable."""

_STILL_IN_USE: list[object] = []
"""The process group of the last job, if it was still referenced when the job ended.

Dropping the last reference joins the threads of the group. A callback of a future does so on one of these threads,
which kills the process with `Resource deadlock avoided` (PowerSGD, in one case of eight). The frames of an error do so
on the main thread while holding the GIL, for which such a thread waits: a deadlock (after `DistributedDataParallel` of
a model with sparse gradients, in one case of ten). By the next job these threads are idle.
"""

LAZY_MODULES = ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict")
"""What torch imports when something is called for the first time: the first of these, in the step of any optimizer."""


class Rank(NamedTuple):
    """The rank that runs a job: the first argument of every function on ranks."""

    number: int
    world_size: int
    device: str


@dataclass(frozen=True)
class Job:
    """A function call for the first `world_size` ranks.

    Attributes:
        call: a function of a module, called with a `Rank` and `arguments` on each rank.
        seconds: the time limit.
        fake: whether the process group is torch's fake one, of which only this rank is there.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    world_size: int
    device: str
    seconds: float
    fake: bool = False

    @property
    def collective_seconds(self) -> float:
        """The timeout of a collective, well below the time limit of the job."""
        return min(MAX_COLLECTIVE_SECONDS, self.seconds / 3)


@dataclass(frozen=True)
class Answer:
    """The result of a job on one rank: the value returned, or the finding of an error."""

    value: Any = None
    finding: Finding = CONFORMS

    @property
    def summary(self) -> str:
        """One line on how the job ended."""
        if self.finding != CONFORMS:
            return self.finding.detail
        if isinstance(self.value, Trace) and self.value.raised:
            return f"raised {self.value.raised.text}"
        return "had finished"


class JobRunner(Protocol):
    """Runs jobs on ranks."""

    @property
    def world_size(self) -> int | None:
        """The number of ranks; None for as many as a job needs."""

    def run(self, job: Job) -> list[Answer]:
        """Return the answers by rank.

        Raises:
            BrokenPromise: if a rank hangs or dies.
            NotRun: if there are not enough ranks.
        """


class GivenRanks(JobRunner, Protocol):
    """Ranks that a run of the suite is started on, and tells of."""

    @property
    def is_dry(self) -> bool:
        """Whether plans are only built, and not compared."""

    @property
    def description(self) -> str:
        """What has run, on one line."""


def run_job(job: Job, number: int, store: Store | None = None) -> Answer:
    """Run a job as rank `number`, with a store of its own; a fake process group needs none."""
    accelerator.set_up_process(job.device)
    rank = Rank(number, job.world_size, accelerator.device_of_rank(job.device, number))
    try:
        seed_all_random_numbers(0, rank.device)
        with restored_settings(), torch.enable_grad(), _process_group(job, rank, store):
            accelerator.make_repeatable(job.device)
            return Answer(job.call(rank, *job.arguments))
    except BaseException as error:
        if not is_observation(error):
            raise
        return Answer(finding=classify_error(error))
    finally:
        accelerator.exit_if_lost(job.device)


def values_of(answers: Sequence[Answer]) -> list[Any]:
    """Return the values by rank.

    Raises:
        BrokenPromise: if the call raised on a rank, with the worst finding.
        NotOffered: if the implementation does not offer something that the job needs.
        NotRun: if a rank cannot run it.
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
    """Load the lazy modules of torch before the first job, and use one thread."""
    torch.set_num_threads(1)
    for module in LAZY_MODULES:
        importlib.import_module(module)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    model = DistributedDataParallel(nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    torch.optim.SGD(model.parameters()).step()
    del model
    gc.collect()
    dist.destroy_process_group()
    gc.freeze()  # makes collection after each job faster


@contextmanager
def _process_group(job: Job, rank: Rank, store: Store | None) -> Iterator[None]:
    """Initialize the process group of a job, and destroy it.

    Each job has its own, so that no operation of an earlier job is pending. A rank that raises destroys it at once; its
    connections close, which raises an error on the ranks that wait for it.
    """
    _STILL_IN_USE.clear()
    try:
        dist.init_process_group(
            _backend(job),
            store=store,
            rank=rank.number,
            world_size=rank.world_size,
            timeout=timedelta(seconds=job.collective_seconds),
        )
        dist.barrier()  # else a rank that needs no other may be gone while another still connects
        yield
    finally:
        gc.collect()  # a wrapper in a reference cycle keeps the connections open
        if dist.is_initialized():  # not always, after a rendezvous that failed
            group = dist.group.WORLD
            dist.destroy_process_group()
            if sys.getrefcount(group) > UNSHARED_REFCOUNT:
                _STILL_IN_USE.append(group)


def _backend(job: Job) -> str:
    if job.fake:
        return dist.Backend.FAKE  # torch registers it if there is no store
    return accelerator.backend_of(job.device, job.world_size)
