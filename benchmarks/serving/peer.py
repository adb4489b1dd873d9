"""The peer: diffusers' StableDiffusionPipeline, used for many concepts as its documentation offers.

One pipeline; before a call with another concept the weights of `to_k` and `to_v` and the row of its placeholder token
are overwritten in place, which is what loading a Custom Diffusion or textual inversion checkpoint comes to, without its
files: all concepts lie in memory. Requests of the concept at the head of the queue share one call, up to the batch
size; prompt and negative prompt share each UNet pass, as the pipeline does it.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor

from benchmarks.serving.arrivals import Ask
from benchmarks.serving.scale import GUIDANCE_SCALE, NEGATIVE_PROMPT
from detex_diffusion.concept import Concept
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import LowRankDelta

_WORD = "<concept>"


class Peer:
    """A pipeline that draws with one concept at a time.

    Attributes:
        threads: Threads of torch that it draws with.
    """

    def __init__(self, folder: Path, concepts: Mapping[str, Concept], *, batch: int, steps: int) -> None:
        """Load it.

        Args:
            folder: The base model in diffusers format.
            concepts: All concepts by name, held in memory.
            batch: Most images of one call.
            steps: Denoising steps.
        """
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.tokenizer.add_tokens([_WORD])
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
        self._pipeline = pipeline
        self._row = pipeline.tokenizer.convert_tokens_to_ids(_WORD)
        self._projections: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}  # weight in use, weight of the base model
        for name, module in cross_attention_layers(pipeline.unet).items():
            for projection in ("to_k", "to_v"):
                weight = getattr(module, projection).weight
                self._projections[name, projection] = (weight, weight.detach().clone())
        self._concepts = concepts
        self._present = ""
        self._batch = batch
        self._steps = steps
        self.threads = 1
        self.threads = self._fastest_threads()

    def _fastest_threads(self) -> int:
        """Threads of torch that this thread's calls are fastest with; small batches often gain nothing by more."""
        seconds = {}
        name = next(iter(self._concepts))
        ask = Ask(name, "on a table", 0)
        for threads in sorted({1, torch.get_num_threads()}):
            self.threads = threads
            self.draw([ask])
            start = time.perf_counter()
            for _ in range(2):
                self.draw([ask])
            seconds[threads] = time.perf_counter() - start
        return min(seconds, key=lambda threads: seconds[threads])

    @torch.inference_mode()
    def draw(self, asks: Sequence[Ask]) -> list[Any]:
        """Images of requests of one concept."""
        self._take(asks[0].concept)
        class_word = self._concepts[asks[0].concept].class_word
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        output = self._pipeline(
            [f"{_WORD} {class_word} {ask.scene}" for ask in asks],
            negative_prompt=[NEGATIVE_PROMPT] * len(asks),
            num_inference_steps=self._steps,
            guidance_scale=GUIDANCE_SCALE,
            generator=[torch.Generator().manual_seed(ask.seed) for ask in asks],
        )
        torch.set_num_threads(threads_before)
        return list(output.images)

    def draw_all(self, asks: Sequence[Ask]) -> float:
        """Seconds to draw requests that are all there at once."""
        start = time.perf_counter()
        waiting = deque(asks)
        while waiting:
            self.draw(self._next(waiting))
        return time.perf_counter() - start

    def draw_at(self, asks: Sequence[Ask], arrivals: Sequence[float]) -> list[float]:
        """Draw each request from its time of arrival on; for each the seconds from the begin of the run to its image.

        One call at a time, as the pipeline is not safe to use from several threads.
        """
        begin = time.perf_counter()
        coming = deque(zip(arrivals, asks, strict=True))
        waiting: deque[Ask] = deque()
        done: dict[Ask, float] = {}
        while coming or waiting:
            now = time.perf_counter() - begin
            if not waiting and coming[0][0] > now:
                time.sleep(coming[0][0] - now)
                now = coming[0][0]
            while coming and coming[0][0] <= now:
                waiting.append(coming.popleft()[1])
            together = self._next(waiting)
            self.draw(together)
            done |= dict.fromkeys(together, time.perf_counter() - begin)
        return [done[ask] for ask in asks]

    def _next(self, waiting: deque[Ask]) -> list[Ask]:
        """Take the first request, and others of its concept as far as they fit into one call."""
        concept = waiting[0].concept
        together = [ask for ask in waiting if ask.concept == concept][: self._batch]
        for ask in together:
            waiting.remove(ask)
        return together

    def _take(self, name: str) -> None:
        if name == self._present:
            return
        concept = self._concepts[name]
        for (layer, projection), (weight, base) in self._projections.items():
            delta = getattr(concept.key_value[layer], projection)
            if not isinstance(delta, LowRankDelta):
                raise TypeError("the peer's concepts have deltas of low rank")
            torch.addmm(base, delta.up, delta.down, out=weight)
        embeddings = self._pipeline.text_encoder.get_input_embeddings().weight
        embeddings[self._row].copy_(concept.subject[0])
        self._present = name
