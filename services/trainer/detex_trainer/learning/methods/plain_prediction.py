"""What a UNet makes of latents under plain words, such as the class word.

Legend: B rows, C latent channels, (h, h) latent size, T text tokens, E text width.
"""

import torch
from torch import Tensor

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, OwnedTokens
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.text import encode_text, tokenize
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.frozen.projections import project_together


class PlainPrediction:
    """What a UNet predicts under plain words, with deltas of keys and values or without.

    Attributes:
        text: The words as the UNet reads them, (1, T, E).
    """

    def __init__(self, base_model: BaseModel, words: str) -> None:
        """For a base model, which may have a UNet in training in place of its own."""
        self._unet = KeyValueUNet(base_model.unet, base_model.pixels_per_latent)
        self._dtype = base_model.dtype
        prompt = tokenize(parse_prompt(words), {}, base_model.tokenizer)
        with torch.no_grad():
            self.text = encode_text(base_model, [prompt])

    def __call__(self, noisy: Tensor, timesteps: Tensor, deltas: KeyValueDeltas) -> Tensor:
        """(B, C, h, h) float32 for latents with noise of that shape and timesteps (B,).

        Every token goes through the deltas, as it does in a prompt of a concept whose scope is `prompt`.
        """
        owned = []
        if deltas:
            tokens = torch.ones(self.text.hidden.shape[:2], dtype=torch.bool)
            owned = [OwnedTokens(tokens, {name: each.to(dtype=self._dtype) for name, each in deltas.items()})]
        one = project_together(self._unet.unet, self.text.hidden, owned)
        rows = noisy.shape[0]
        batch = KeyValueBatch(
            {name: (k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for name, (k, v) in one.layers.items()},
            pooled_text=None if self.text.pooled is None else self.text.pooled.expand(rows, -1),
        )
        return self._unet(noisy.to(self._dtype), timesteps, batch).float()
