"""Plain words that the words of a concept begin at, as the base model itself chooses them."""

from detex_trainer.learning.methods.plain_words.choice import choose_plain_words
from detex_trainer.learning.methods.plain_words.errors import ChosenWords

__all__ = ["ChosenWords", "choose_plain_words"]
