"""Scenario files: their format, and playing them on a floor (simulator, bench or lab)."""
