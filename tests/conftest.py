"""Fixtures for all tests."""

from hypothesis import settings

pytest_plugins = ["tests.servers.postgresql", "tests.servers.seaweedfs"]

# How long an example takes says nothing on a machine that others use.
settings.register_profile("detex", deadline=None)
settings.load_profile("detex")
