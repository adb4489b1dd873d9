"""Settings of the generator, read from the environment (`DETEX_*`)."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from detex_core.settings import ServiceSettings
from detex_generator.ops.kernel_setting import parse_kernels

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3


class GeneratorSettings(ServiceSettings):
    """Settings of the generator, in addition to those of both services.

    Attributes:
        slots: Images denoised concurrently; each takes up to two rows of a UNet pass.
        max_waiting_images: Images that may wait for a slot before requests are refused.
        max_waiting_images_per_tenant: Images of one tenant that may wait for a slot; 0 applies max_waiting_images only.
        max_images_per_request: Maximum `count` of a request.
        max_steps: Maximum number of denoising steps of a request.
        max_image_pixels: Maximum width times height of an image.
        max_concepts_per_request: Maximum number of concepts in prompt and negative prompt together.
        max_requests_in_flight_per_stream: Requests of a GenerateMany stream that are processed concurrently; the stream
            is not read further until one is done.
        max_requests_per_stream: Maximum number of requests in a GenerateMany stream.
        concept_cache_bytes: Host memory for concepts. A concept larger than this is served but not cached.
        device_concept_cache_bytes: GPU memory for concepts, in addition to host memory; no effect on a CPU.
        prompt_cache_bytes: Memory for keys and values of prompts not currently in use.
        unet_cache_bytes: Memory for UNets of concepts that train the UNet itself (DreamBooth) and are not currently in
            use.
        base_model_bytes: Memory for the weights of all base models; the service exits if they do not fit. 0 means the
            free memory of a GPU, and no limit on a CPU. Packed weights count twice.
        newest_version_seconds: How long the newest version of a concept is cached; 0 checks for each request.
        store_retry_seconds: Wait before retrying an object store that did not answer, doubled at each further failure;
            cached data is served meanwhile.
        store_retry_longest_seconds: Upper bound of that wait.
        loading_threads: Threads that access the object store, to resolve versions and load concepts.
        admission_threads: Threads that encode prompts.
        decoding_threads: Threads that decode latents and write PNGs.
        pack_weights: On a CPU, also keep the weights of linear and convolution layers in oneDNN's layout: faster, for
            twice their memory. No effect where steps are compiled.
        denoising_threads: Cores used by one UNet pass on a CPU; 0 leaves it to torch.
        kernels: Implementation of the parts of a denoising step: `auto`, `torch` or `triton`, or a list such as
            `self_attention=triton,geglu=torch`. `auto` is torch on a CPU; the service exits if a requested one cannot
            run.
        cuda_graphs: Whether to capture denoising steps as CUDA graphs; no effect on a CPU.
        compile: Whether to compile denoising steps: `auto` on a GPU that has the segmented attention kernel, `on`
            everywhere, `off` nowhere. Compilation runs in the background, most used batch sizes first; until it is
            done, or where it fails, steps run uncompiled. Off until the findings of the first run on a GPU have been
            measured again.
        compile_cache_folder: Folder for the compiler's cache, read at the next start; empty means `compiled_steps` in
            the work folder. Share it only among processes of the same version and kind of GPU.
    """

    slots: int = Field(default=8, ge=1, le=256)
    max_waiting_images: int = Field(default=256, ge=1, le=100_000)
    max_waiting_images_per_tenant: int = Field(default=0, ge=0, le=100_000)
    max_images_per_request: int = Field(default=64, ge=1, le=64)
    max_steps: int = Field(default=500, ge=1, le=500)
    max_image_pixels: int = Field(default=1024 * 1024, ge=64, le=4096 * 4096)
    max_concepts_per_request: int = Field(default=8, ge=1, le=64)
    max_requests_in_flight_per_stream: int = Field(default=32, ge=1, le=4096)
    max_requests_per_stream: int = Field(default=100_000, ge=1, le=10_000_000)
    concept_cache_bytes: int = Field(default=GIBIBYTE, ge=0)
    device_concept_cache_bytes: int = Field(default=GIBIBYTE, ge=0)
    prompt_cache_bytes: int = Field(default=256 * MEBIBYTE, ge=0)
    unet_cache_bytes: int = Field(default=4 * GIBIBYTE, ge=0)
    base_model_bytes: int = Field(default=0, ge=0)
    newest_version_seconds: float = Field(default=0.5, ge=0, le=60, allow_inf_nan=False)
    store_retry_seconds: float = Field(default=0.5, gt=0, le=600, allow_inf_nan=False)
    store_retry_longest_seconds: float = Field(default=10.0, gt=0, le=600, allow_inf_nan=False)
    loading_threads: int = Field(default=8, ge=1, le=256)
    admission_threads: int = Field(default=2, ge=1, le=64)
    decoding_threads: int = Field(default=1, ge=1, le=64)
    pack_weights: bool = True
    denoising_threads: int = Field(default=0, ge=0, le=1024)
    kernels: str = "auto"
    cuda_graphs: bool = True
    compile: Literal["auto", "on", "off"] = "off"
    compile_cache_folder: str = ""

    @field_validator("kernels")
    @classmethod
    def _check_kernels(cls, text: str) -> str:
        parse_kernels(text)
        return text

    @model_validator(mode="after")
    def _check_queue(self) -> Self:
        if self.max_images_per_request > self.max_waiting_images:
            raise ValueError(
                f"max_images_per_request: must be at most max_waiting_images ({self.max_waiting_images}), got "
                f"{self.max_images_per_request}; larger requests could never be queued"
            )
        if 0 < self.max_waiting_images_per_tenant < self.max_images_per_request:
            raise ValueError(
                f"max_waiting_images_per_tenant: must be 0, or at least max_images_per_request "
                f"({self.max_images_per_request}), got {self.max_waiting_images_per_tenant}; larger requests could "
                "never be queued"
            )
        return self
