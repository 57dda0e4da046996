"""Several server processes for one address, and the parent that starts, watches and ends them."""
