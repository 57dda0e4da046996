"""Between protobuf and the domain, a module for each service."""
