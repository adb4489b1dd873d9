"""Command groups whose default command is `list`: `detex jobs` is `detex jobs list`."""

from typing import Any

from typer.core import TyperGroup

_HELP = ("--help",)


class ListingGroup(TyperGroup):
    """A group that runs `list`, with the given options, where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of the group, with `list` in front where no command is named."""
        if not args or (args[0].startswith("-") and args[0] not in _HELP):
            args = ["list", *args]
        return super().parse_args(ctx, args)
