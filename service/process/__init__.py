"""What the process has beside its work: the log, TLS, tracing and metrics."""
