"""Runs the variants in turns, in one process, so that they meet the same machine."""

from __future__ import annotations

import copy
import gc
import random
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.memory import counted
from bench.models import WORKLOADS
from bench.results import Result, Results
from bench.variants import OPTIMIZERS, VARIANTS, baseline_of, groups_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from bench.variants import Variant

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        seconds: How long each variant is measured in a round, at least.
        laps: How many steps of each, at least.
        rounds: How many rounds, each on new copies of the model.
        device: The kind of the device, "cpu" or that of an accelerator.
    """

    seconds: float
    laps: int
    rounds: int
    device: str


class Runner:
    """A variant that was set up on a copy of the model."""

    def __init__(self, variant: Variant, optimizer: str, model: nn.Module, batch: Tensor) -> None:
        self.variant = variant
        optimizer_class, options = OPTIMIZERS[optimizer]
        self._params = [*(own := copy.deepcopy(model)).parameters()]
        self._step, optimizers = variant.set_up(own, optimizer_class, options | variant.options)
        self._optimizers: list[Optimizer] = [*optimizers]
        self._batch = batch

    def run(self) -> None:
        """Run a step."""
        self._step(self._batch)

    def count(self, result: Result, device: str) -> None:
        """Run a step, and count its memory."""
        with counted(self._params, device) as peaks:
            self.run()
        result.peak_gradients, result.peak_allocation = peaks.gradients, peaks.allocation

    def release(self) -> None:
        """Free the memory, which some of the variants never do."""
        for optimizer in self._optimizers:
            optimizer.state.clear()
        for param in self._params:
            param.grad = None
            param.data = param.new_empty(0)


def measure(
    setting: Setting, models: list[str], optimizers: list[str], variants: list[str], machine: dict[str, str]
) -> Iterator[Results]:
    """Measure everything. Yields the results so far after each group, and says on stderr what is measured."""
    results = Results(machine)
    for model_name in models:
        torch.manual_seed(0)
        model = WORKLOADS[model_name].build().to(setting.device)
        batch = WORKLOADS[model_name].batch().to(setting.device)
        sizes = [param.nbytes for param in model.parameters()]
        results.model_bytes[model_name] = (sum(sizes), max(sizes))
        for optimizer in optimizers:
            for group in groups_of(optimizer, variants):
                _say(f"{model_name}, {optimizer}, {len(group)} variants: {', '.join(each.name for each in group)}")
                for result in _measure_group(setting, model_name, optimizer, group, (model, batch)):
                    _say(f"  {result.variant:20} {result.quartiles[1] * 1e3:9.2f} ms {result.ratio:7.3f}")
                    if VARIANTS[result.variant].is_fused is group[-1].is_fused:  # else a baseline, which has its group
                        results.found.append(result)
                yield results


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _measure_group(
    setting: Setting, model_name: str, optimizer: str, group: list[Variant], workload: tuple[nn.Module, Tensor]
) -> list[Result]:
    results = {variant.name: Result(model_name, optimizer, variant.name) for variant in group}
    baseline = results[baseline_of(optimizer)]
    for number in range(setting.rounds):
        runners = [Runner(variant, optimizer, *workload) for variant in group]
        for runner in runners:
            for _ in range(WARM_UP_STEPS):
                runner.run()
        with settled_garbage():
            times = _take_turns(runners, setting, random.Random(number))  # noqa: S311
        for runner in runners:
            results[runner.variant.name].seconds.append(times[runner.variant.name])
            if number == 0:
                runner.count(results[runner.variant.name], setting.device)
            runner.release()
    for result in results.values():
        result.baseline_seconds = baseline.seconds
    return [*results.values()]


def _take_turns(runners: list[Runner], setting: Setting, order: random.Random) -> dict[str, list[float]]:
    clock = _seconds if setting.device == "cpu" else _seconds_on_accelerator
    times: dict[str, list[float]] = {runner.variant.name: [] for runner in runners}
    ends, laps = time.perf_counter() + setting.seconds * len(runners), 0
    while laps < setting.laps or time.perf_counter() < ends:
        for runner in order.sample(runners, len(runners)):
            times[runner.variant.name].append(clock(runner.run))
        laps += 1
    return times


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _seconds_on_accelerator(run: Callable[[], None]) -> float:
    start, end = (torch.Event(enable_timing=True) for _ in range(2))
    torch.accelerator.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3


@contextmanager
def settled_garbage() -> Iterator[None]:
    """Keep Python's garbage collector from running in a `with` block."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
