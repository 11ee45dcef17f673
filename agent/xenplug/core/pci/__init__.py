"""Whole host controllers: preflight, plan, and what is remembered of those given away."""
