"""What the agent must remember because no tool can report it."""
