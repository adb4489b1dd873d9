"""Settings of the generator, read from the environment (`DETEX_*`)."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from detex_core.settings import ServiceSettings
from detex_generator.ops.kernel_setting import parse_kernels

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3


class GeneratorSettings(ServiceSettings):
    """What the generator is told, beyond what both services are told.

    Attributes:
        slots: Images that are denoised at the same time; each takes up to two rows of a UNet pass.
        max_waiting_images: Images that may wait for a slot before requests are refused.
        max_waiting_images_per_tenant: Images of one tenant that may wait for a slot; 0 leaves it to max_waiting_images.
        max_images_per_request: Largest `count` of a request.
        max_steps: Largest number of denoising steps of a request.
        max_image_pixels: Largest width times height of an image.
        max_concepts_per_request: Most concepts that prompt and negative prompt may name together.
        max_requests_in_flight_per_stream: Requests of one GenerateMany stream that are worked on at the same time; the
            stream is read no further until one is done.
        max_requests_per_stream: Requests that one GenerateMany stream may carry in all.
        concept_cache_bytes: Host memory for concepts. One that is larger than this still serves, but is not kept.
        device_concept_cache_bytes: GPU memory for concepts, beside that of the host; without effect on a CPU.
        prompt_cache_bytes: Memory for keys and values of prompts that no image is being drawn from.
        unet_cache_bytes: Memory for UNets of concepts that train the UNet itself (DreamBooth), beside those that images
            are being drawn with.
        base_model_bytes: Memory that the weights of all base models may take together; one that does not fit ends the
            service. 0 means what is free on a GPU, and no limit on a CPU. Packed weights count twice.
        newest_version_seconds: How long the answer to "which version is the newest" holds; 0 asks for each request.
        store_retry_seconds: After the object store has not answered, nobody asks it for so long; doubled at each
            further failure. What is in memory serves meanwhile.
        store_retry_longest_seconds: Bound of that doubling.
        loading_threads: Threads that ask the object store: to resolve versions, and to load concepts.
        admission_threads: Threads that encode prompts.
        decoding_threads: Threads that decode latents and write PNGs.
        pack_weights: On a CPU, keep the weights of linear and convolution layers also in the layout that oneDNN reads:
            faster, for twice their memory. Without effect where steps are compiled.
        denoising_threads: Cores that one UNet pass uses on a CPU; 0 leaves it to torch.
        kernels: What computes the parts of a denoising step: `auto`, `torch` or `triton`, or a list such as
            `self_attention=triton,geglu=torch`. `auto` is torch on a CPU; what is asked for and cannot run ends the
            service.
        cuda_graphs: Whether denoising steps are captured as CUDA graphs; without effect on a CPU.
        compile: Whether denoising steps are compiled: `auto` on a GPU that has the kernel of segmented attention, `on`
            also elsewhere, `off` nowhere. Compilation runs in the background, the sizes of batches that are used most
            first; what is not compiled yet, or cannot be, is drawn as without it. Off until what the first run on a GPU
            showed has been measured again.
        compile_cache_folder: Where the compiler keeps what it made, for the next start to read; empty means
            `compiled_steps` in the work folder. To be shared by processes of one version on one kind of GPU alone.
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
