"""Images: their bounds, decoding and resizing, the same for each backend."""
