"""Makes the plan: from decisions, snapshot and ledger to ordered steps and a verdict for every device."""
