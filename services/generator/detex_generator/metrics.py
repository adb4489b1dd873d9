"""Prometheus metrics of the generator."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import grpc
import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from detex_core.tracing import Attribute, Span
from detex_generator.request.generation_request import Priority

_PREFIX = "detex_generator_"
# From a stage out of memory to a large request behind others; finest from 0.5 to 10 s, where objectives lie.
_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0),
)
_STAGES = ("check", "load", "encode", "denoise", "decode")
_LEVELS = ("host", "device")
_LOADS = ("level", "outcome")
_ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)


class GeneratorMetrics:
    """The generator's own metrics; those of gRPC calls come with the server.

    Labels take few values: outcomes are `OK` and names of gRPC statuses, reasons are those of `DetexError`, stages and
    levels (`host`, `device`) are the generator's own, base models are the configured ones. No concept, tenant or
    request is ever a label. Counters begin at 0 with each usual value of their labels, so that `increase()` sees
    the first event.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with `registry`."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(_PREFIX + name, text, labels, buckets=_SECONDS, registry=registry)

        self.requests = counter("requests", "Requests by outcome; each request of a stream counts.", "outcome")
        self.refusals = counter("refused_requests", "Requests refused on arrival, by reason.", "reason")
        self.request_seconds = seconds("request_seconds", "Time from acceptance to the last image of a request.")
        self.stage_seconds = seconds(
            "stage_seconds",
            "Time of one stage: checking a request, loading the concepts of an image, encoding its prompts, denoising "
            "it, decoding it.",
            "stage",
        )
        self.waiting_images = gauge("waiting_images", "Accepted images without a slot.")
        self.queue_wait_seconds = seconds(
            "queue_wait_seconds", "Time from acceptance of a request to a slot, per image, by priority.", "priority"
        )
        self.slots = gauge("slots", "Images that can be denoised concurrently.")
        self.slots_in_use = gauge("slots_in_use", "Images being denoised.")
        self.batch_rows = Histogram(_PREFIX + "batch_rows", "Rows of one UNet pass.", buckets=_ROWS, registry=registry)
        self.passes = counter("unet_passes", "UNet passes, each over all live rows of one resolution.")
        self.pass_seconds = seconds("unet_pass_seconds", "Time of one UNet pass with guidance and solver.")
        self.image_steps = counter("image_steps", "Denoising steps, each image counted by itself.")
        self.kernel_choice = gauge(
            "kernel_choice", "1 for what computes an operation of the denoising step.", "operation", "implementation"
        )
        self.compilations = counter("compilations", "Compilations of steps, one per size, by outcome.", "outcome")
        self.compilation_seconds = seconds("compilation_seconds", "Time to compile the step of one size.")
        self.images = counter("images", "Images delivered.", "base_model")
        self.previews = counter("previews", "Previews delivered.")
        self.device_memory = gauge(
            "device_memory_bytes",
            "GPU memory: used by tensors, reserved by torch, and in total.",
            "use",
        )
        self.out_of_memory = counter("out_of_memory", "Out-of-memory errors, by stage.", "stage")
        self.failed_images = counter("failed_images", "Images that failed in a slot or in decoding.", "reason")

        self.concept_hits = counter("concept_cache_hits", "Concepts found in memory, by level.", "level")
        self.concept_misses = counter("concept_cache_misses", "Concepts not found in memory, by level.", "level")
        self.concept_loads = counter(
            "concept_cache_loads", "Concepts loaded into a level: from the object store, or to the device.", *_LOADS
        )
        self.concept_load_seconds = seconds(
            "concept_cache_load_seconds", "Time to load one concept into a level.", "level"
        )
        self.concept_evictions = counter("concept_cache_evictions", "Evicted concepts, by level.", "level")
        self.concept_bytes = gauge("concept_cache_bytes", "Memory of cached concepts, by level.", "level")
        self.concepts_resident = gauge("concept_cache_concepts", "Cached concepts, by level.", "level")
        self.concepts_pinned = gauge("concept_cache_pinned_bytes", "Memory of pinned concepts.", "level")
        self.store_up = gauge("object_store_up", "1 while the object store answers, 0 after it has not.")
        self.store_up.set(1)
        self.store_failures = counter("object_store_failures", "Calls that the object store did not answer.")
        self.store_refusals = counter(
            "object_store_refusals", "Calls not made because the object store had not answered shortly before."
        )
        self.concept_stale = counter(
            "concept_cache_stale_resolutions",
            "Requests served with the last known version because the object store did not answer.",
        )
        self.unet_hits = counter("unet_cache_hits", "UNets of concepts that train the UNet found in memory.")
        self.unet_misses = counter("unet_cache_misses", "UNets of concepts that had to be built.")
        self.unet_evictions = counter("unet_cache_evictions", "Evicted UNets of concepts.")
        self.unet_bytes = gauge("unet_cache_bytes", "Memory of cached UNets of concepts beyond the base model's.")
        self.prompt_hits = counter("prompt_cache_hits", "Prompts whose keys and values were cached.")
        self.prompt_misses = counter("prompt_cache_misses", "Prompts that had to be encoded.")
        self.prompt_evictions = counter("prompt_cache_evictions", "Evicted prompts.")
        self.prompt_bytes = gauge("prompt_cache_bytes", "Memory of cached keys and values.")
        self._begin_at_zero()

    def serves(self, base_models: Iterable[str]) -> None:
        """Begin the counts of these base models at 0."""
        for name in base_models:
            self.images.labels(name)

    def _begin_at_zero(self) -> None:
        for code in grpc.StatusCode:
            self.requests.labels(code.name)
        for stage in _STAGES:
            self.stage_seconds.labels(stage)
        for priority in Priority:
            self.queue_wait_seconds.labels(priority.name.lower())
        for outcome in ("OK", "FAILED"):
            self.compilations.labels(outcome)
        for stage in ("encode", "denoise", "decode"):
            self.out_of_memory.labels(stage)
        for reason in ("DRAWING_FAILED", "INTERNAL", "NON_FINITE_LATENTS", "OUT_OF_MEMORY"):
            self.failed_images.labels(reason)
        for reason in ("DEADLINE_CANNOT_BE_MET", "INVALID_INPUT", "OBJECT_STORE_UNAVAILABLE", "QUEUE_FULL"):
            self.refusals.labels(reason)
        for level in _LEVELS:
            for cache in (self.concept_hits, self.concept_misses, self.concept_evictions):
                cache.labels(level)
            self.concept_load_seconds.labels(level)
            self.concept_loads.labels(level, "loaded")
        self.concept_loads.labels("host", "failed")

    @contextmanager
    def stage(self, stage: str, span: Span, **attributes: Attribute) -> Iterator[None]:
        """Time a stage of a request, whether it succeeds or not; see `end_stage`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.end_stage(stage, time.monotonic() - start, span, **attributes)

    def end_stage(self, stage: str, seconds: float, span: Span, **attributes: Attribute) -> None:
        """A stage of a request has ended just now: `check`, `load`, `encode`, `denoise` or `decode`."""
        self.stage_seconds.labels(stage).observe(seconds, span.exemplar)
        span.record(stage, seconds, **attributes)

    def compiled(self, seconds: float, error: str | None) -> None:
        """The compilation of a step has ended."""
        self.compilations.labels("OK" if error is None else "FAILED").inc()
        self.compilation_seconds.observe(seconds)

    def watch_device_memory(self) -> None:
        """Tell the memory of the GPU of this process from now on; without effect where there is none."""
        if not torch.cuda.is_available():
            return
        self.device_memory.labels("tensors").set_function(torch.cuda.memory_allocated)
        self.device_memory.labels("reserved").set_function(torch.cuda.memory_reserved)
        self.device_memory.labels("total").set(
            torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        )
