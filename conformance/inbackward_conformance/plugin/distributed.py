"""`python -m inbackward_conformance distributed`: the distributed chapters on ranks of torchrun, or as a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inbackward_conformance.plugin.options import PACKAGE
from inbackward_conformance.plugin.session import RANKS
from inbackward_conformance.ranks.cluster import Cluster, join, serve
from inbackward_conformance.ranks.dry_run import DryRun
from inbackward_conformance.ranks.job import warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.ranks.job import GivenRanks


class RanksPlugin:
    """The pytest plugin that provides the ranks."""

    def __init__(self, ranks: GivenRanks) -> None:
        self._ranks = ranks

    def pytest_configure(self, config: pytest.Config) -> None:
        """Store the ranks for the `ranks` fixture.

        Raises:
            pytest.UsageError: if a dry run is to write scripts, which would start all of its ranks.
        """
        if self._ranks.is_dry and config.getoption("conformance_repro"):
            raise pytest.UsageError("--conformance-repro: a dry run writes no scripts; leave it out")
        config.stash[RANKS] = self._ranks


def run_on_cluster(arguments: Sequence[str]) -> int:
    """Run the distributed chapters, with `arguments` for pytest, and return the exit status of this rank.

    Rank 0 runs pytest and writes the record; the others run the jobs that it sends.
    """
    store, rank, world_size = join()
    if rank:
        serve(store, rank)
        return 0
    cluster = Cluster(store, world_size)
    warm_up()
    try:
        return _run_pytest(cluster, arguments)
    finally:
        cluster.close()


def run_dry(world_size: int, arguments: Sequence[str]) -> int:
    """Run the distributed chapters dry, with `arguments` for pytest, and return the exit status."""
    warm_up()
    return _run_pytest(DryRun(world_size), arguments)


def _run_pytest(ranks: GivenRanks, arguments: Sequence[str]) -> int:
    # Workers of xdist do not have these ranks.
    options = ["--pyargs", PACKAGE.name, "--distributed", "-p", "no:xdist", *arguments]
    return int(pytest.main(options, [RanksPlugin(ranks)]))
