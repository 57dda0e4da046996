"""Where objects are kept: the contract, Weaviate, and Weaviate as a child process."""
