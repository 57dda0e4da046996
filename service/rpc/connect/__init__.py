"""Connect and gRPC-Web over HTTP, for browsers and curl: the same methods, through the same interceptors, as gRPC."""
