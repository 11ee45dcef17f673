"""What surrounds the loop: orders and answers, the policy in force, the history, and how an agent is put together."""
