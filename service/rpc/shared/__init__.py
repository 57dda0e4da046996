"""What several services share: scopes, filters, bounds and violations."""
