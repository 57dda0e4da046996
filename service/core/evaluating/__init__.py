"""How well a collection is searched: the index against exact search, and hits against known answers."""
