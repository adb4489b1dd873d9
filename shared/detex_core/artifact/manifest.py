"""The manifest of a concept: what it is, what it fits, and the hashes of its files."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from detex_core.prompt import ATTRIBUTE_NAME, CONCEPT_NAME
from detex_core.tenancy import TENANT_NAME

SCHEMA_VERSION: Literal[1] = 1
CONCEPT_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")

ConceptName = Annotated[str, StringConstraints(pattern=f"^{CONCEPT_NAME.pattern}$")]
ConceptVersion = Annotated[str, StringConstraints(pattern=f"^{CONCEPT_VERSION.pattern}$")]
AttributeName = Annotated[str, StringConstraints(pattern=f"^{ATTRIBUTE_NAME.pattern}$")]
TenantName = Annotated[str, StringConstraints(pattern=f"^{TENANT_NAME.pattern}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.(safetensors|json|png)$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileRecord(_Record):
    """Size and hash of one file of an artifact."""

    size_bytes: int = Field(ge=0)
    sha256: Sha256


class Attribute(_Record):
    """An attribute with one word embedding per photo.

    Attributes:
        name: Attribute word, for example `pose`; it follows the embedding in prompts.
        count: Number of embeddings, one per photo.
    """

    name: AttributeName
    count: int = Field(ge=1, le=64)


class KeyValueForm(_Record):
    """How the cross-attention deltas are written.

    Attributes:
        form: `none` (words only), `full` (dW per layer) or `low_rank` (dW = up @ down per layer).
        scope: Which tokens of a prompt go through the concept's projections: its own `words` (embedding and noun), or
            the whole `prompt`.
        largest_rank: Largest rank of any layer; 0 unless low rank.
        energy_kept: Share of the squared Frobenius norm that the written form keeps, 0 to 1.
        has_subject_vectors: Whether keys and values of the subject's tokens have vectors added in every layer.
    """

    form: Literal["none", "full", "low_rank"]
    scope: Literal["words", "prompt"]
    largest_rank: int = Field(ge=0)
    energy_kept: float = Field(ge=0, le=1)
    has_subject_vectors: bool = False


class UNetForm(_Record):
    """How deltas of the UNet's own parameters are written, for methods that train the UNet.

    Attributes:
        form: `none`, `full` (each of its parameter's shape), or `low_rank` (each as up @ down of the parameter seen as
            a matrix, or in full where that is smaller).
        largest_rank: Largest rank of any parameter; 0 unless low rank.
        energy_kept: Share of the squared Frobenius norm that the written form keeps, 0 to 1.
    """

    form: Literal["none", "full", "low_rank"] = "none"
    largest_rank: int = Field(default=0, ge=0)
    energy_kept: float = Field(default=1.0, ge=0, le=1)


class ConceptDraft(_Record):
    """What a trainer knows about a concept that it is going to publish.

    Attributes:
        name: Name of the concept.
        tenant: Owner.
        method: How it was learned, for example `detex`.
        base_model: Name of the base model where it was trained.
        base_model_fingerprint: SHA-256 over what of the base model a concept depends on.
        class_word: One or two plain words for what the subject is.
        subject_tokens: Word embeddings that stand for the subject.
        embedding_width: Width of the word embeddings, of all text encoders of the base model side by side.
        attributes: Attributes with words of their own.
        key_value: Form of the cross-attention deltas.
        unet: Form of the deltas of the UNet's own parameters; a concept that has them is drawn with a UNet of its own.
        dtype: Type of the tensors as written.
        training_set_digest: SHA-256 over class word, photos, masks and captions.
        hyperparameters: All hyperparameters as used.
        metrics: Numbers of the training, for example `loss_final`.
        trainer_version: Version of detex that wrote it.
    """

    name: ConceptName
    tenant: TenantName
    method: Literal["detex", "textual_inversion", "custom_diffusion", "dreambooth", "dreambooth_lora"]
    base_model: str = Field(min_length=1, max_length=128)
    base_model_fingerprint: Sha256
    class_word: str = Field(min_length=1, max_length=64)
    subject_tokens: int = Field(ge=1, le=8)
    embedding_width: int = Field(ge=1, le=65_536)
    attributes: tuple[Attribute, ...]
    key_value: KeyValueForm
    unet: UNetForm = UNetForm()
    dtype: Literal["float32", "float16"]
    training_set_digest: Sha256
    hyperparameters: dict[str, int | float | str]
    metrics: dict[str, float]
    trainer_version: str

    @field_validator("attributes")
    @classmethod
    def _check_names(cls, attributes: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
        names = [attribute.name for attribute in attributes]
        if len(set(names)) != len(names):
            raise ValueError(f"must be unique, got {names}")
        return attributes

    def attribute(self, name: str) -> Attribute | None:
        """The attribute of that name, or None."""
        return next((attribute for attribute in self.attributes if attribute.name == name), None)


class Manifest(ConceptDraft):
    """Contents of manifest.json. Unknown keys are refused; a later schema gets a later `schema_version`.

    Attributes:
        schema_version: Version of this schema.
        version: `<UTC time>-<8 hex digits of the content>`; versions of a name sort by age.
        files: Every file of the artifact but the manifest itself, by name.
        create_time: When it was published.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    version: ConceptVersion
    files: dict[FileName, FileRecord]
    create_time: AwareDatetime


def concept_version(create_time: datetime, content_sha256: str) -> str:
    """Version of a concept: when it was published (UTC, to the second) and the first 8 digits of its content's hash.

    Raises:
        ValueError: `create_time` has no time zone, or `content_sha256` is no SHA-256.
    """
    if create_time.tzinfo is None:
        raise ValueError(f"a time without a zone: {create_time!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", content_sha256):
        raise ValueError(f"not a SHA-256: {content_sha256!r}")
    return f"{create_time.astimezone(UTC):%Y%m%dT%H%M%SZ}-{content_sha256[:8]}"
