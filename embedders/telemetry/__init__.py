"""Metrics, timing and tracing of embedders."""
