"""Maps of collections: a sample of their vectors, projected to two dimensions."""
