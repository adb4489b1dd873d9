"""How well methods of customization do, measured where the truth is known."""
