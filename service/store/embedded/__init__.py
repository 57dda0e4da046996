"""Weaviate as a child process."""
