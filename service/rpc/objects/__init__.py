"""ObjectService."""
