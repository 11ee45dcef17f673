"""Measurements: `./dev bench`. Never asserted in tests; figures and how to repeat them: docs/reference/performance.md."""
