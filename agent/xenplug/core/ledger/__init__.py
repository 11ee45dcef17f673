"""What must be remembered because no tool can tell it."""
