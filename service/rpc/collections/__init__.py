"""CollectionService."""
