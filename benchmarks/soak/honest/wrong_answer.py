"""What a caller says of an answer that is not what it has asked for."""


class WrongAnswerError(Exception):
    """A call ended well, with something else than what was asked for."""
