"""Whose request is being served: the tenant of the running call, as a context variable.

`detex_core.grpc_server` sets it from the request metadata; it follows `await`, new asyncio tasks and
`asyncio.to_thread`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from detex_core.errors import invalid_input
from detex_core.name_form import NameForm

DEFAULT_TENANT = "default"
TENANT_NAMES = NameForm("a-z0-9", "a-z0-9-", 63, "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter or a digit")
TENANT_NAME = TENANT_NAMES.pattern
TENANT_METADATA_KEY = "detex-tenant"

_tenant: ContextVar[str | None] = ContextVar("detex_tenant", default=None)


def current_tenant() -> str:
    """Tenant of the running call; `default` outside of calls."""
    return _tenant.get() or DEFAULT_TENANT


def tenant_in_scope() -> str | None:
    """Tenant of the running call; None outside of calls."""
    return _tenant.get()


def set_tenant(tenant: str) -> None:
    """Make `tenant` the tenant of the running task until it ends; for servers, which run each call in its own task."""
    _tenant.set(tenant)


@contextmanager
def tenant_scope(tenant: str) -> Iterator[None]:
    """Make `tenant` the current tenant within a `with` block."""
    token = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(token)


def checked_tenant(tenant: str, *, field: str = TENANT_METADATA_KEY) -> str:
    """The tenant itself where its name is well formed.

    Raises:
        InvalidInputError: It is not 1 to 63 of a-z, 0-9 and hyphens, beginning with a letter or digit.
    """
    if not TENANT_NAMES.is_name(tenant):
        raise invalid_input(field, TENANT_NAMES.given(tenant), TENANT_NAMES.accepted)
    return tenant
