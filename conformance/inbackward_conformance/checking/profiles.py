"""Settings of Hypothesis; its option `--hypothesis-profile` chooses how many plans are drawn."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import InvalidArgument

QUICK = "quick"
PROFILES = {
    QUICK: settings(max_examples=30, stateful_step_count=8),
    "ci": settings(max_examples=150, stateful_step_count=15),
    "thorough": settings(max_examples=1200, stateful_step_count=25),
}

for name, profile in PROFILES.items():
    settings.register_profile(name, profile)


def is_registered(profile: str) -> bool:
    """Return whether there is such a profile, of the suite's or of Hypothesis's own."""
    try:
        settings.get_profile(profile)
    except InvalidArgument:
        return False
    return True


def drawing(profile: str, *, on_ranks: bool = False) -> settings:
    """Return the settings of drawn requirements: the number of plans from a profile, all else for repeatable runs.

    On ranks, where a plan costs several times as much, a third as many are drawn.

    There is no database, since runs would depend on earlier ones, and no deadline or health check, since they depend on
    the machine. Only the smallest failure is reported, since a case has one finding.
    """
    base = settings.get_profile(profile)
    return settings(
        base,
        max_examples=max(base.max_examples // 3, 1) if on_ranks else base.max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=(settings.default or base).verbosity,
    )
