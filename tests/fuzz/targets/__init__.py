"""The targets: one module for each parser (see tests/fuzz/driver)."""
