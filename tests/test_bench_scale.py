"""`python -m bench scale`: its counts are those that a person works out, and a target that is missed is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bench.scale.arrangements import ARRANGEMENTS, WAYS
from bench.scale.results import Count, Counts, Point
from bench.scale.targets import targets

from test_bench import assert_has_plots

if TYPE_CHECKING:
    from collections.abc import Callable

LAYER = 4 * 16 * 16  # bytes; a row of it has 64
BUCKET = ["--bucket-bytes", str(2 * LAYER)]


def scale(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "scale", *args]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_counts_are_those_worked_out_by_hand(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    setting = ["--depths", "4", "8", "--layers", "4", "--widths", "16", "8", "--ranks", "1", "2", "1024"]
    run = scale(pytestconfig.rootpath, *setting, *BUCKET, "--json", str(figures), "--docs", str(tmp_path))
    assert run.returncode == 0, run.stderr
    axes = json.loads(figures.read_text(encoding="utf-8"))["axes"]

    def at(axis: str, arrangement: str, grown: int) -> list[dict[str, Any]]:
        """Give the counts of the standard loop, `apply_optimizer_in_backward` and `step_in_backward`."""
        by = "ranks" if axis == "ranks" else "layers"
        points = [(each, each["point"]) for each in axes[axis]]
        return [each for each, point in points if point["arrangement"] == arrangement and point[by] == grown]

    def each(found: list[dict[str, Any]], key: str) -> list[Any]:
        return [count[key] for count in found]

    for layers in (4, 8):
        stepped = [[layers], [1] * layers, [2] * (layers // 2)]

        alone = at("depth", "alone", layers)
        assert each(alone, "sent") == [{}] * 3
        assert each(alone, "parameters") == [layers * LAYER] * 3
        assert each(alone, "state") == [2 * layers * LAYER + 4 * layers] * 3  # two moments, and the number of the step
        assert each(alone, "gradients") == [layers * LAYER, LAYER, 3 * LAYER]  # a bucket of two, and the next one
        assert each(alone, "steps") == stepped

        ddp = at("depth", "ddp", layers)
        assert each(ddp, "sent") == [{"all_reduce": layers * LAYER}] * 3
        assert each(ddp, "collectives") == [{"all_reduce": layers // 2}] * 3
        assert each(ddp, "gradients") == [(layers + 1) * LAYER] * 3  # all buckets, and what is copied into one
        assert each(ddp, "steps") == stepped

        fsdp, shard = at("depth", "fsdp", layers), LAYER // 8
        gathered = 2 * layers * shard  # in forward and in backward
        assert each(fsdp, "sent") == [{"all_gather": gathered, "reduce_scatter": layers * LAYER}] * 3
        assert each(fsdp, "collectives") == [{"all_gather": 2 * layers, "reduce_scatter": layers}] * 3
        assert each(fsdp, "parameters") == [layers * shard] * 3
        assert each(fsdp, "state") == [2 * layers * shard + 4 * layers] * 3
        # An unsharded gradient, what goes into a reduce-scatter, and shards.
        assert each(fsdp, "gradients") == [2 * LAYER + shards * shard for shards in (layers, 1, 3)]
        assert each(fsdp, "steps") == stepped

    cut = at("parameters", "alone", 16)
    assert each(cut, "gradients") == [4 * LAYER, LAYER // 4, 2 * LAYER + LAYER // 4]
    assert each(cut, "steps") == [[16], [1] * 16, [8] * 2]

    for ranks in (1, 2, 1024):
        assert each(at("ranks", "ddp", ranks), "sent") == [{"all_reduce": 4 * LAYER}] * 3
        unused = at("ranks", "ddp-unused", ranks)  # DDP sends an int32 for each parameter, and so do buckets of ours
        assert each(unused, "sent") == [{"all_reduce": 4 * LAYER, "map": size} for size in (4 * 4, 8 * 4, 8 * 4)]
        assert each(unused, "collectives") == [{"all_reduce": 2, "map": calls} for calls in (1, 3, 3)]
    assert each(at("ranks", "fsdp", 1), "sent") == [{}] * 3
    padded = {"all_gather": 2 * 4 * 64, "reduce_scatter": 4 * 1024 * 64}  # a row for each rank
    assert each(at("ranks", "fsdp", 1024), "sent") == [padded] * 3

    tables, _, verdicts = run.stdout.partition("\ntargets\n")
    assert "ranks, DDP, find_unused_parameters\n" in tables
    assert verdicts.count("  met ") == len(verdicts.splitlines()) == 25
    page = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert "| 1,024 | `step_in_backward` | 4 KiB in 2 | 32 B in 3 | 4 KiB |" in page
    assert_has_plots(page, tmp_path, "scale")


def test_a_missed_target_is_told(pytestconfig: pytest.Config) -> None:
    # The gradients of two layers are one bucket, those of eight a bucket and the next gradient.
    setting = ["--depths", "2", "8", "--layers", "2", "--widths", "16", "--ranks", "2"]
    run = scale(pytestconfig.rootpath, *setting, *BUCKET)
    assert run.returncode == 1, run.stderr
    missed = [line for line in run.stdout.splitlines() if "MISSED" in line]
    assert any("1.500 (at most 1.00)  one process" in line for line in missed)


def as_it_should_be() -> Counts:
    """Give counts that meet all targets: two models along each axis, the second with twice the layers."""
    counts = Counts({})
    for axis in ("depth", "parameters", "ranks"):
        counts.axes[axis] = [
            Count(
                Point(arrangement, way, layers, 16, 2, LAYER * layers, 1),
                collectives={"all_reduce": 1, "map": 1},
                sent={"all_reduce": layers * LAYER, "map": 8 * layers if "unused" in arrangement else 0},
                gradients=layers * LAYER if way == "loop" else LAYER,
                steps=[layers],
            )
            for arrangement in ARRANGEMENTS
            for layers in (2, 4)
            for way in WAYS
        ]
    for count in (each for found in counts.axes.values() for each in found if each.point.way == "loop"):
        count.sent["map"] //= 2
    return counts


def more_gradients(count: Count) -> None:
    count.gradients += 4 * LAYER


def more_calls(count: Count) -> None:
    count.steps *= 3


def more_bytes(count: Count) -> None:
    count.sent["all_reduce"] += 1


def fewer_bytes(count: Count) -> None:
    count.sent["map"] -= 4


def more_collectives(count: Count) -> None:
    count.collectives["broadcast"] = 1


GROWTH = "peak gradient bytes of `step_in_backward`, deepest model over shallowest"
COPIES = "peak gradient bytes of `step_in_backward`, over the standard loop's"
CALLS = "calls of the optimizer, `step_in_backward` minus bytes over bucket size"
CALLS_GROWTH = "calls of the optimizer, `step_in_backward`, most parameters over fewest"
SENT = "bytes sent more than the standard loop's and the map, `step_in_backward`"
COLLECTIVES = "collectives more than the standard loop's and the map, `step_in_backward`"


@pytest.mark.parametrize(
    ("spoil", "axis", "arrangement", "told"),
    [
        (more_gradients, "depth", "alone", [GROWTH]),
        (more_gradients, "depth", "ddp", [COPIES]),
        (more_calls, "depth", "fsdp", [CALLS]),
        (more_calls, "parameters", "ddp", [CALLS, CALLS_GROWTH]),
        (more_bytes, "ranks", "fsdp", [SENT]),
        (fewer_bytes, "ranks", "ddp-unused", [SENT]),
        (more_collectives, "ranks", "ddp", [COLLECTIVES]),
    ],
)
def test_each_target_can_be_missed(
    spoil: Callable[[Count], None], axis: str, arrangement: str, told: list[str]
) -> None:
    counts = as_it_should_be()
    assert [str(each) for each in targets(counts) if not each.is_met] == []
    spoil(counts.along(axis, arrangement, "handed")[-1])
    missed = [each for each in targets(counts) if not each.is_met]
    assert [each.what for each in missed] == told
    assert {each.where for each in missed} == {ARRANGEMENTS[arrangement].label}
