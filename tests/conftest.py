"""Fixtures for all tests."""

pytest_plugins = ["tests.servers.postgresql", "tests.servers.seaweedfs"]
