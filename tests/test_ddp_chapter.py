"""What the requirements of chapter ddp take for granted about torch's own DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, WrapDDP
from inbackward_conformance.ranks.stores import HashStore
from inbackward_conformance.report.record import summarize, verdict
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train
from records import case


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_buckets_are_rebuilt_after_the_first_backward() -> None:
    """One of all parameters, then one for each, in reverse order: `ddp/many_buckets` shows what it says."""
    model = MLP()
    names = {param: name for name, param in model.named_parameters()}
    ddp = DistributedDataParallel(model, bucket_cap_mb=1e-5)  # as the requirement does
    buckets: list[list[str]] = []

    def reduce(bucket: Any) -> Any:
        buckets.append([names[param] for param in bucket.parameters()])
        return allreduce_hook(bucket=bucket, process_group=None)  # type: ignore[arg-type]  # that of all ranks

    ddp.register_comm_hook(None, lambda _, bucket: reduce(bucket))  # DDP reads annotations, and not as strings
    for _ in range(2):
        ddp(torch.ones(1, 4)).sum().backward()
    assert buckets == [list(names.values()), *([name] for name in reversed(names.values()))]


def test_mixed_precision_needs_an_accelerator() -> None:
    """The standard loop of `ddp/mixed_precision` raises on a CPU, of whatever implementation."""
    wrap, sgd = WrapDDP(mixed_precision="bfloat16"), Assignment("SGD", {"lr": 0.1})
    plan = Plan("MLP", (sgd,), (Backward(),), before=(wrap,), ranks=Ranks(1))
    standard = train(plan, StandardLoop(Implementation(object())))
    assert standard.raised
    assert "cpu backend doesn't support events" in standard.raised.text


@pytest.mark.parametrize(("device", "expected"), [("cpu", "conformant"), ("cuda", "incomplete")])
def test_no_verdict_rests_on_what_torch_cannot_do_there(device: str, expected: str) -> None:
    """It is listed as not run, and does not count as passed."""
    cases = [case("x", "ddp/equality", "conforms"), case("x", "ddp/mixed_precision", "not run")]
    equality, mixed_precision = summarize("x", cases, [], device)
    assert (equality.passed, mixed_precision.passed) == (True, False)
    assert verdict([equality, mixed_precision]) == expected
