"""An NVIDIA NIM as a backend."""
