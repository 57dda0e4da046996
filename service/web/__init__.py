"""HTTP: an endpoint that answers as an nvclip NIM does, over the same core as gRPC."""
