"""What can be said of a request without asking anybody: required fields, patterns, bounds and known enum numbers.

A module for each service.
"""
