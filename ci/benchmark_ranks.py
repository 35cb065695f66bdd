"""What a DDP case costs on ranks that are up, beside the same case on ranks that are started for it.

    python ci/benchmark_ranks.py [--world-size 2] [--implementation reference] [--fresh 3] [--warm 30]

A case is a plan of four steps, run by the standard loop and by the implementation, and compared.
"""

from __future__ import annotations

import argparse
import statistics
import time

from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, WrapDDP
from inbackward_conformance.ranks.on_ranks import OnRanks, run_both
from inbackward_conformance.ranks.pool import Pool
from inbackward_conformance.training.compare_ranks import compare_ranks

LIMIT = 60.0


def seconds_of_case(pool: Pool, name: str, device: str, world_size: int) -> float:
    """Run the case once."""
    sgd = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
    plan = Plan("MLP", (sgd,), (Backward(),) * 4, before=(WrapDDP(),), ranks=Ranks(world_size))
    ranks = OnRanks(pool, name, device, LIMIT)
    started = time.perf_counter()
    standard, observed = zip(*ranks.call(world_size, run_both, plan), strict=True)
    finding = compare_ranks(standard, observed)
    seconds = time.perf_counter() - started
    if not finding.passed:
        print(f"note: the case {finding.outcome}: {finding.detail}")
    return seconds


def main() -> None:
    """Measure both and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--implementation", default="reference")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fresh", type=int, default=3, metavar="N", help="cases with a spawn of their own")
    parser.add_argument("--warm", type=int, default=30, metavar="N", help="cases on ranks that are up")
    given = parser.parse_args()
    case = (given.implementation, given.device, given.world_size)

    fresh = []
    for _ in range(given.fresh):
        pool = Pool()
        try:
            fresh.append(seconds_of_case(pool, *case))
        finally:
            pool.close()
    pool = Pool()
    try:
        seconds_of_case(pool, *case)
        warm = [seconds_of_case(pool, *case) for _ in range(given.warm)]
    finally:
        pool.close()
    slow, quick = statistics.median(fresh), statistics.median(warm)
    print(f"{given.world_size} ranks on {given.device}, {given.implementation}, medians:")
    print(f"  ranks started for the case  {slow * 1000:8.0f} ms  ({len(fresh)} cases)")
    print(f"  ranks already up            {quick * 1000:8.0f} ms  ({len(warm)} cases)")
    print(f"  ratio                       {slow / quick:8.0f}")


if __name__ == "__main__":
    main()
