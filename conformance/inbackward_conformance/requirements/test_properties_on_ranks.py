"""Whatever plan Hypothesis draws for several ranks is trained as in the standard loop.

As in the chapter properties; plans are drawn in the process that sends them to the ranks. Up to two ranks, equal means
to the bit; with three a difference of some roundings passes, as in the chapter ddp.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.drawn import Drawn
from inbackward_conformance.checking.strategies.on_ranks import ddp_plans
from inbackward_conformance.checking.strategies.sharded import sharded_plans


@pytest.mark.must
def test_ddp(drawn: Drawn) -> None:
    """Whatever buckets there are, whatever is unused on which rank, left unsynchronised or shared: it trains alike."""
    drawn(ddp_plans())


@pytest.mark.must
def test_sharded(drawn: Drawn) -> None:
    """Whatever is sharded over whichever dimensions of a mesh, unused, or left unsynchronised: it trains alike.

    Parameters that are the same in a dimension are declared local to the implementation, if it has this call.
    """
    drawn(sharded_plans())
