"""Stands in for the process that runs UMAP: takes its vectors, and then hangs."""

import sys
import threading

if __name__ == "__main__":
    sys.stdin.buffer.read()
    threading.Event().wait()
