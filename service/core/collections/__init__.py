"""Collections and tenants."""
