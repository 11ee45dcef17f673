"""What is fuzzed: one module for each reader (see tests/fuzz/driver)."""
