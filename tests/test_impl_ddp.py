"""Under `wrap_ddp`, the reference implementation gives bit for bit what plain DDP and the standard loop give."""

from __future__ import annotations

from typing import Any

import pytest

from impl_ddp_runs import (
    Run,
    accumulating,
    checkpointed,
    different,
    equals_plain_ddp,
    freeze,
    ignore,
    never_spare,
    plain,
    reentrant,
    retained,
    sgd,
    share,
    spare_now_and_then,
    spare_on_one_rank,
    spare_while_accumulating,
    two_for_all,
    two_forwards,
)
from impl_ranks import Ranks, shared

MANY_BUCKETS: dict[str, Any] = {"bucket_cap_mb": 0.0001}
UNUSED = {"find_unused_parameters": True}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("buckets", [{}, MANY_BUCKETS], ids=["one bucket", "many buckets"])
def test_equal_at_every_size(ranks: Ranks, size: int, in_place: bool, buckets: dict[str, Any]) -> None:
    ranks.run(equals_plain_ddp, size, options={"gradient_as_bucket_view": in_place, **buckets})


@pytest.mark.parametrize("when", ["before", "after", "after the first forward"])
@pytest.mark.parametrize("assign", [sgd, two_for_all, different])
def test_whenever_attached(ranks: Ranks, when: str, assign: Any) -> None:
    ranks.run(equals_plain_ddp, when=when, assign=assign, options=MANY_BUCKETS)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("run", "options"),
    [
        (spare_on_one_rank, UNUSED),
        (spare_now_and_then, UNUSED),
        (never_spare, UNUSED),
        (spare_while_accumulating, UNUSED),
        (accumulating, UNUSED),
        (accumulating, {}),
        (never_spare, {"static_graph": True}),
        (plain, {"static_graph": True}),
        (reentrant, {"static_graph": True}),
        (reentrant, {}),
        (two_forwards, {}),
        (checkpointed, {}),
        (retained, {}),
    ],
)
@pytest.mark.parametrize("buckets", [{}, MANY_BUCKETS], ids=["one bucket", "many buckets"])
def test_equal_whatever_runs(ranks: Ranks, run: Run, options: Any, in_place: bool, buckets: Any) -> None:
    options = {**options, **buckets, "gradient_as_bucket_view": in_place}
    ranks.run(equals_plain_ddp, 3, run, options, assign=sgd)
    if run is spare_on_one_rank:
        ranks.run(equals_plain_ddp, 2, run, options)


@pytest.mark.parametrize("prepare", [share, freeze, ignore])
@pytest.mark.parametrize("in_place", [False, True])
def test_equal_whatever_the_model(ranks: Ranks, prepare: Any, in_place: bool) -> None:
    ranks.run(equals_plain_ddp, 2, prepare=prepare, options={"gradient_as_bucket_view": in_place, **MANY_BUCKETS})
