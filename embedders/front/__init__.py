"""What stands in front of a backend: batching, queueing, breaker, cache, failover, and the proof of a space."""
