"""Who may call: certificates, keys and tokens, and what each client may do. It knows nothing of gRPC and HTTP."""
