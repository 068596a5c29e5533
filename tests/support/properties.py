"""How Hypothesis runs the tests that it makes up: without deadlines, and so that a failure says how
to run it again."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# A failure takes its time to be made small: for this long, in seconds, beyond the usual timeout of
# a test. Hypothesis stops after 300.
SHRINKING_S = 400

# For --hypothesis-profile=fuzz: hours of new examples where a test takes their number from the
# profile (test_proxy.py::test_fuzz).
settings.register_profile("fuzz", max_examples=10_000_000)


def examples(count: int, steps: int = 50) -> settings:
    """Return settings for *count* examples, of at most *steps* steps each where they are programs.

    A busy machine is no failure. Nothing is kept between runs: what failed is printed, with the
    decorator that repeats it.
    """
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        # A change is judged by the same examples as the change before it; who runs the tests by
        # hand looks for new ones.
        derandomize=bool(os.environ.get("CI")),
        phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
