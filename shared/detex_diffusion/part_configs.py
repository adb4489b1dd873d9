"""Configurations of UNet, VAE, text encoders and tokenizers: what their keys may say, and whether the parts fit.

Everything is told by the files, before a library builds anything of them: what diffusers and transformers build of an
accepted key is what detex computes with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detex_diffusion.config_rules import (
    Rule,
    check_config,
    is_whole,
    list_of,
    number,
    one_of,
    shown,
    switch,
    unread,
    unsupported,
    whole,
)
from detex_diffusion.model_files import place_name, read_json
from detex_diffusion.model_index import SIZE_CONDITIONS, SUPPORTED, Architecture, ModelIndex

_CONDITIONS = f"its UNet takes conditions other than those its text encoders provide; supported are {SUPPORTED}"
_PLAIN = "detex's cross-attention reads text alone"
_TRAINING = "counts in training of the base model alone, which stays frozen"
_BLOCKS = "detex knows the blocks of Stable Diffusion"

_AVERAGING = unread(
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
    reason="how an average of weights was kept while the base model was trained",
)

_UNET: Mapping[str, Rule] = {
    "sample_size": list_of(whole(1), single=True, null=True),
    "in_channels": whole(1),
    "out_channels": whole(1),
    "center_input_sample": one_of(False),
    "flip_sin_to_cos": switch(),
    "freq_shift": number(0),
    "down_block_types": list_of(one_of("CrossAttnDownBlock2D", "DownBlock2D", reason=_BLOCKS)),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None, reason=_BLOCKS),
    "up_block_types": list_of(one_of("CrossAttnUpBlock2D", "UpBlock2D", reason=_BLOCKS)),
    "only_cross_attention": list_of(one_of(False, reason=_PLAIN), single=True),
    "mid_block_only_cross_attention": one_of(None, False, reason=_PLAIN),
    "block_out_channels": list_of(whole(1)),
    "layers_per_block": list_of(whole(1), single=True),
    "downsample_padding": whole(0),
    "mid_block_scale_factor": number(0, above=True),
    "act_fn": one_of("silu", "swish"),
    "norm_num_groups": whole(1),
    "norm_eps": number(0, above=True),
    "cross_attention_dim": whole(1),
    "transformer_layers_per_block": list_of(whole(1), single=True),
    "reverse_transformer_layers_per_block": list_of(whole(1), single=True, null=True),
    "attention_head_dim": list_of(whole(1), single=True),
    "num_attention_heads": list_of(whole(1), single=True, null=True),
    "use_linear_projection": switch(),
    "upcast_attention": switch("attention is added up in float32 whatever it says"),
    "addition_embed_type": one_of(None, "text_time", reason=_CONDITIONS),
    "addition_time_embed_dim": whole(1, null=True),
    "projection_class_embeddings_input_dim": whole(1, null=True),
    "class_embed_type": one_of(None, reason=_CONDITIONS),
    "class_embeddings_concat": one_of(False, reason=_CONDITIONS),
    "num_class_embeds": one_of(None, reason=_CONDITIONS),
    "encoder_hid_dim": one_of(None, reason=_CONDITIONS),
    "encoder_hid_dim_type": one_of(None, reason=_CONDITIONS),
    "time_cond_proj_dim": one_of(
        None, reason=f"{_CONDITIONS}; a model distilled with its guidance built in, as of LCM's full weights, reads it"
    ),
    "dual_cross_attention": one_of(False, reason=_CONDITIONS),
    "attention_type": one_of("default", reason=_CONDITIONS),
    "cross_attention_norm": one_of(None, reason=_PLAIN),
    "resnet_time_scale_shift": one_of("default"),
    "resnet_skip_time_act": one_of(False),
    "resnet_out_scale_factor": one_of(1, 1.0),
    "time_embedding_type": one_of("positional"),
    "time_embedding_dim": whole(1, null=True),
    "time_embedding_act_fn": one_of(None),
    "timestep_post_act": one_of(None),
    "conv_in_kernel": one_of(3),
    "conv_out_kernel": one_of(3),
    **unread("dropout", reason=_TRAINING),
    **unread("addition_embed_type_num_heads", reason="belongs to other added conditions, which are refused"),
    **_AVERAGING,
}

_VAE: Mapping[str, Rule] = {
    "in_channels": one_of(3),
    "out_channels": one_of(3),
    "down_block_types": list_of(one_of("DownEncoderBlock2D")),
    "up_block_types": list_of(one_of("UpDecoderBlock2D")),
    "block_out_channels": list_of(whole(1)),
    "layers_per_block": whole(1),
    "act_fn": one_of("silu", "swish"),
    "latent_channels": whole(1),
    "norm_num_groups": whole(1),
    "scaling_factor": number(0, above=True),
    "shift_factor": one_of(
        None, 0, 0.0, reason="pipelines of Stable Diffusion do not shift latents; models that do are of other kinds"
    ),
    "latents_mean": list_of(number(float("-inf")), null=True),
    "latents_std": list_of(number(0, above=True), null=True),
    "force_upcast": switch(),
    "use_quant_conv": switch(),
    "use_post_quant_conv": switch(),
    "mid_block_add_attention": switch(),
    **unread("sample_size", reason="the VAE takes every size; the UNet's counts"),
    **unread("dropout", reason=_TRAINING),
    **_AVERAGING,
}

_GENERATION = unread(
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "tf_legacy_loss",
    "top_k",
    "top_p",
    "typical_p",
    "cross_attention_hidden_size",
    "tie_encoder_decoder",
    reason="is for models that write text",
)
_NOTES = unread(
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    reason="a note of transformers; detex asks for type and hidden states by itself",
)

_TEXT_ENCODER: Mapping[str, Rule] = {
    "model_type": one_of("clip_text_model", "clip"),
    "vocab_size": whole(1),
    "hidden_size": whole(1),
    "intermediate_size": whole(1),
    "projection_dim": whole(1),
    "num_hidden_layers": whole(1),
    "num_attention_heads": whole(1),
    "max_position_embeddings": whole(3),
    "hidden_act": one_of("quick_gelu", "gelu"),
    "layer_norm_eps": number(0, above=True),
    "use_attention_mask": switch(),
    "is_decoder": one_of(False),
    "is_encoder_decoder": one_of(False),
    "add_cross_attention": one_of(False),
    "pruned_heads": Rule(lambda value: value in ({}, None), "{}", "heads would be missing"),
    **unread("attention_dropout", "dropout", "initializer_factor", "initializer_range", reason=_TRAINING),
    **unread("bos_token_id", "eos_token_id", "pad_token_id", reason="the tokenizer's count"),
    **_GENERATION,
    **_NOTES,
}

_TOKENIZER: Mapping[str, Rule] = {
    "tokenizer_class": one_of(
        "CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", None
    ),
    "model_max_length": number(3, null=True),
    "do_lower_case": one_of(True, reason="CLIP reads lower case alone"),
    "add_prefix_space": one_of(False),
    "padding_side": one_of("right", reason="CLIP is padded at the end"),
    "truncation_side": one_of("right"),
    "split_special_tokens": one_of(False),
    "extra_special_tokens": Rule(lambda value: not value, "none", "words of concepts are placed by detex"),
    "additional_special_tokens": Rule(lambda value: not value, "none", "words of concepts are placed by detex"),
    **unread(
        "added_tokens_decoder",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        reason="honoured as the library reads it",
    ),
    **unread(
        "backend",
        "clean_up_tokenization_spaces",
        "errors",
        "is_local",
        "local_files_only",
        "max_length",
        "merges_file",
        "name_or_path",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding",
        "processor_class",
        "special_tokens_map_file",
        "stride",
        "tokenizer_file",
        "truncation",
        "truncation_strategy",
        "use_fast",
        "vocab_file",
        reason="concerns where the tokenizer came from, or how it writes text, or calls that are not made here",
    ),
}

# What the libraries take where a config does not say.
_TEXT_WIDTH, _PROJECTION, _TEXT_OF_UNET = 512, 512, 1280


@dataclass(frozen=True)
class PictureSize:
    """What a base model draws.

    Attributes:
        height: In pixels, of the pictures it was made for.
        width: In pixels.
        pixels_per_latent: Side of a latent in pixels.
    """

    height: int
    width: int
    pixels_per_latent: int


def check_parts(folder: Path, index: ModelIndex) -> None:
    """Hold the configurations of all parts against what is known, and against each other.

    Raises:
        FailedPreconditionError: A key has a value that is not supported, an unknown key is switched on, or parts do not
            fit together.
        DataLossError: A configuration is missing or cannot be read.
    """
    unet, vae = (_checked(folder / part / "config.json", rules) for part, rules in (("unet", _UNET), ("vae", _VAE)))
    for config, part, name in ((unet, "unet", "UNet2DConditionModel"), (vae, "vae", "AutoencoderKL")):
        if config.get("_class_name", name) != name:
            raise unsupported(f"{part}/config.json", f"_class_name is {shown(config['_class_name'])}, not {name}.")
    encoders = []
    for tokenizer, encoder in index.text_parts:
        _checked(folder / tokenizer / "tokenizer_config.json", _TOKENIZER)
        encoders.append(_checked(folder / encoder / "config.json", _TEXT_ENCODER))
    picture_size(folder)
    _check_statistics(vae, index)
    problem = _misfit(index, unet, vae, encoders)
    if problem:
        raise unsupported(f"Base model in {folder.name!r}", f"{problem}.")


def picture_size(folder: Path) -> PictureSize:
    """The size of the pictures that a base model was made for; raises FailedPreconditionError where it does not say."""
    place = folder / "unet" / "config.json"
    size = read_json(place).get("sample_size")
    sides = [size, size] if is_whole(size) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(is_whole(side) and side > 0 for side in sides)):
        raise unsupported(
            place_name(place),
            f"sample_size is {'null' if size is None else shown(size)}; write the latents along a side of the pictures "
            "that the model was made for: 64 for 512 pixels, 96 for 768, 128 for 1024.",
        )
    levels = len(read_json(folder / "vae" / "config.json").get("block_out_channels", [64]))
    factor = 2 ** (levels - 1)
    return PictureSize(sides[0] * factor, sides[1] * factor, factor)


def _checked(path: Path, rules: Mapping[str, Rule]) -> dict[str, Any]:
    config = read_json(path)
    check_config(place_name(path), config, rules)
    return config


def _check_statistics(vae: Mapping[str, Any], index: ModelIndex) -> None:
    """Latents of XL may be normalised by mean and deviation; other pipelines know nothing of them."""
    given = {key: vae.get(key) for key in ("latents_mean", "latents_std")}
    there = [key for key, value in given.items() if value is not None]
    if not there:
        return
    if index.architecture is not Architecture.STABLE_DIFFUSION_XL:
        raise unsupported(
            "vae/config.json",
            f"{' and '.join(there)} are of Stable Diffusion XL alone; pipelines of 1.x and 2.x do not apply them.",
        )
    channels = vae.get("latent_channels", 4)
    if len(there) < 2 or any(len(value) != channels for value in given.values() if value is not None):
        raise unsupported(
            "vae/config.json", f"latents_mean and latents_std must both be null, or both lists of {channels} numbers."
        )


def _misfit(
    index: ModelIndex, unet: Mapping[str, Any], vae: Mapping[str, Any], encoders: list[dict[str, Any]]
) -> str | None:
    """Why the parts do not fit together, or None where they do."""
    taken, given, latent = unet.get("in_channels", 4), unet.get("out_channels", 4), vae.get("latent_channels", 4)
    if not taken == given == latent:
        return (
            f"the UNet takes {taken} and gives {given} channels, the VAE has {latent}; inpainting and upscaling models "
            "are not supported"
        )
    reads = unet.get("cross_attention_dim", _TEXT_OF_UNET)
    writes = sum(config.get("hidden_size", _TEXT_WIDTH) for config in encoders)
    if reads != writes:
        return f"the UNet reads text of width {reads}, the text encoders write {writes}"
    is_xl = index.architecture is Architecture.STABLE_DIFFUSION_XL
    if unet.get("addition_embed_type") != ("text_time" if is_xl else None):
        return _CONDITIONS
    if not is_xl:
        return None
    pooled = encoders[-1].get("projection_dim", _PROJECTION)
    expected = pooled + SIZE_CONDITIONS * int(unet.get("addition_time_embed_dim") or 0)
    added = unet.get("projection_class_embeddings_input_dim")
    if added != expected:
        return (
            f"its UNet takes added conditions of width {added}; the pooled text and {SIZE_CONDITIONS} numbers on the "
            f"size have {expected} (refiners are not supported)"
        )
    return None
