"""The setting that says what computes each operation; knows no torch, for settings are read before it is imported."""

from detex_core.errors import invalid_input
from detex_generator.ops.operation import Implementation, Operation

AUTO = "auto"


def parse_kernels(text: str) -> dict[Operation, Implementation]:
    """Implementations that are asked for by name; operations that are not in the answer are `auto`.

    Args:
        text: `auto`, `torch` or `triton` for all operations, or a list such as `self_attention=triton,geglu=torch`;
            what a list does not name is `auto`.

    Raises:
        InvalidInputError: It is none of these.
    """
    accepted = (
        f"{AUTO}, {', '.join(Implementation)}, or a list of operation=implementation with the operations "
        f"{', '.join(Operation)}"
    )
    words = [word.strip() for word in text.split(",")]
    if len(words) == 1 and "=" not in words[0]:
        if words[0] == AUTO:
            return {}
        if words[0] not in set(Implementation):
            raise invalid_input("kernels", repr(text), accepted)
        return dict.fromkeys(Operation, Implementation(words[0]))
    asked: dict[Operation, Implementation] = {}
    for word in words:
        operation, _, implementation = (part.strip() for part in word.partition("="))
        if operation not in set(Operation) or operation in asked:
            raise invalid_input("kernels", repr(text), accepted)
        if implementation == AUTO:
            continue
        if implementation not in set(Implementation):
            raise invalid_input("kernels", repr(text), accepted)
        asked[Operation(operation)] = Implementation(implementation)
    return asked
