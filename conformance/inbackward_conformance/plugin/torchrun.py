"""`python -m inbackward_conformance distributed`: runs the distributed chapters on the ranks of torchrun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inbackward_conformance.plugin.options import CLUSTER, PACKAGE
from inbackward_conformance.ranks.cluster import Cluster, join, serve
from inbackward_conformance.ranks.job import warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence


class ClusterPlugin:
    """The pytest plugin that provides the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def pytest_configure(self, config: pytest.Config) -> None:
        """Store the cluster for the `ranks` fixture."""
        config.stash[CLUSTER] = self._cluster


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
        # Workers of xdist are not ranks of torchrun.
        return int(
            pytest.main(
                ["--pyargs", PACKAGE.name, "--distributed", "-p", "no:xdist", *arguments], [ClusterPlugin(cluster)]
            )
        )
    finally:
        cluster.close()
