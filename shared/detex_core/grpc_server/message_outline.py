"""The outline of a large message, walked before it is parsed: many small fields cost far more time than their bytes.

A request that carries pictures has few fields, and large ones. One of as many bytes in a million fields holds the event
loop up for seconds while it is parsed. Wire format: protobuf.dev/programming-guides/encoding.
"""

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from detex_core.errors import ResourceExhaustedError

SMALL_MESSAGE_BYTES: Final = 64 * 1024
"""Messages of this size are parsed as they are: they cannot hold enough to matter."""
MAX_FIELDS: Final = 4_096
"""Of a larger message, those of nested ones included."""
MAX_PACKED_BYTES: Final = 16 * 1024
"""Of one packed field of a larger message."""


def check_outline(data: bytes, message: Descriptor) -> None:
    """Refuse a large message of more fields than any caller needs; what does not parse is left to the parser.

    Args:
        data: The message on the wire.
        message: What it is to be.

    Raises:
        ResourceExhaustedError: It has too many fields (reason `TOO_MANY_FIELDS`).
    """
    if len(data) > SMALL_MESSAGE_BYTES:
        _Walk(memoryview(data)).message(0, len(data), message)


class _Walk:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fields = 0

    def message(self, position: int, end: int, message: Descriptor | None) -> None:
        known = {} if message is None else message.fields_by_number
        groups = 0  # that are open: no message of ours has any, yet parsers pass over those of others
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise _too_many(f"more than {MAX_FIELDS:,} fields")
            key, position = self._varint(position, end)
            match key & 7:
                case 0:
                    _, position = self._varint(position, end)
                case 1:
                    position += 8
                case 5:
                    position += 4
                case 2:
                    size, position = self._varint(position, end)
                    if position + size > end:
                        return
                    self._delimited(position, position + size, None if groups else known.get(key >> 3))
                    position += size
                case 3:
                    groups += 1
                case 4:
                    groups -= 1
                case _:
                    return

    def _delimited(self, position: int, end: int, field: FieldDescriptor | None) -> None:
        if field is None or field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
            return
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            self.message(position, end, field.message_type)
        elif end - position > MAX_PACKED_BYTES:
            raise _too_many(f"more than {MAX_PACKED_BYTES:,} bytes of {field.name}")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 64:
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        return 7, end  # no key and no size that continues


def _too_many(what: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"request: must have at most {MAX_FIELDS:,} fields and at most {MAX_PACKED_BYTES:,} bytes in a packed field "
        f"when larger than {SMALL_MESSAGE_BYTES:,} bytes, got {what}.",
        reason="TOO_MANY_FIELDS",
    )
