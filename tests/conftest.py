"""Profiles of hypothesis: the default is quick; HYPOTHESIS_PROFILE=long tries 3000 examples per test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

# The same examples each time: a failure that only a random seed finds must not stop an unrelated change.
settings.register_profile("quick", deadline=None, suppress_health_check=SLOW, derandomize=True)
settings.register_profile("long", deadline=None, suppress_health_check=SLOW, max_examples=3000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
