"""Measurements: `./dev bench`. No test asserts them. Figures and how to repeat them: docs/reference/performance.md."""
