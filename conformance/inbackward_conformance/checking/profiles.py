"""How many plans are drawn: profiles of Hypothesis, chosen by its own option `--hypothesis-profile`."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

QUICK = "quick"

settings.register_profile(QUICK, max_examples=30, stateful_step_count=8)
settings.register_profile("ci", max_examples=150, stateful_step_count=15)
settings.register_profile("thorough", max_examples=1200, stateful_step_count=25)


def drawing(profile: str, *, on_ranks: bool = False) -> settings:
    """Return the settings of drawn requirements: of a profile how many, all else so that a run can be repeated.

    On ranks, where a plan costs several times as much, a third as many are drawn.

    No database, which would be a folder among the user's files and make a run depend on the one before; no deadline and
    no health check, which depend on the machine; one failure, the smallest, since a case comes to one finding.
    """
    chosen = settings.get_profile(profile)
    return settings(
        chosen,
        max_examples=max(chosen.max_examples // 3, 1) if on_ranks else chosen.max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=(settings.default or chosen).verbosity,
    )
