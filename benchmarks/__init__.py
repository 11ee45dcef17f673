"""Measurements: `./dev bench`. Never asserted in tests; the figures stand in docs/performance.md with how to repeat them."""
