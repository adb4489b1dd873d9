"""Tenants who do what tenants do, and remember what they were promised."""
