"""Before a run: what it will remove, how long it takes and what it needs."""
