"""SearchService."""
