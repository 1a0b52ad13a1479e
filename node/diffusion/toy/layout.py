"""The model directory: the configurations, the tokenizer, and how the parts are saved.

The layout, the file names and the configuration keys are those of Z-Image-Turbo's own directory; only numbers differ.
No dimension that a loader could confuse with another one is equal to it (heads * head_dim != hidden size, and so on).
"""
import json
import shutil

import torch

IMAGE_TOKENS = (8, 8)  # rows and columns of 2x2 latent patches in a 128x128 picture
CAPTION_TOKENS = 32  # every caption of the grammar, template tokens included, fits into one padding unit

TRANSFORMER = {
    "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512],
    "cap_feat_dim": 160, "dim": 192, "in_channels": 16, "n_heads": 6, "n_kv_heads": 6, "n_layers": 4,
    "n_refiner_layers": 1, "norm_eps": 1e-05, "qk_norm": True, "rope_theta": 256.0, "t_scale": 1000.0,
}
VAE = {
    "act_fn": "silu", "block_out_channels": [16, 32, 64, 64], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True, "in_channels": 3, "latent_channels": 16, "latents_mean": None, "latents_std": None,
    "layers_per_block": 1, "mid_block_add_attention": True, "norm_num_groups": 8, "out_channels": 3,
    "sample_size": 128, "scaling_factor": 1.0, "shift_factor": 0.0, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False, "use_quant_conv": False,
}
TEXT_ENCODER = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
    "head_dim": 32, "hidden_act": "silu", "hidden_size": 160, "initializer_range": 0.02, "intermediate_size": 384,
    "max_position_embeddings": 40960, "max_window_layers": 3, "model_type": "qwen3", "num_attention_heads": 4,
    "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": None,
}
SCHEDULER = {"num_train_timesteps": 1000, "use_dynamic_shifting": False, "shift": 3.0}
MODEL_INDEX = {
    "_class_name": "ZImagePipeline", "_diffusers_version": "0.36.0.dev0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"], "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
# In this order after the last byte-pair token, as in Qwen3; (text, special).
SPECIAL_TOKENS = [
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True), ("<|quad_start|>", True),
    ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True), ("<|vision_pad|>", True),
    ("<|image_pad|>", True), ("<|video_pad|>", True), ("<tool_call>", False), ("</tool_call>", False),
    ("<|fim_prefix|>", False), ("<|fim_middle|>", False), ("<|fim_suffix|>", False), ("<|fim_pad|>", False),
    ("<|repo_name|>", False), ("<|file_sep|>", False), ("<tool_response>", False), ("</tool_response>", False),
    ("<think>", False), ("</think>", False),
]
PRETOKENIZE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Renders plain user and assistant turns as the Qwen3 template does (no tools, no reasoning text).
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- endif %}"
)
CHAT_FORMAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------
# Tokenizer
# ----------------------------------------------------------------------------------------
def _byte_level(model):
    """A tokenizer around a model with Qwen2's normaliser, pre-tokeniser and decoder."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tokenizer


def _corpus(words):
    """Texts whose pair counts make byte merges first close over characters, then over words, never beyond a word.

    A Chinese caption is one run of letters to the pre-tokeniser. Trained on captions, the merges would glue
    neighbouring words together, and a rare pair of words would be a token that training has hardly seen.
    """
    characters = sorted({c for w in words for c in w if ord(c) > 127})
    turns = ["user", "assistant", "system"]
    return characters * 1000 + (words + [" " + w for w in words if w.isascii()] + turns) * 10


def train_tokenizer(words, directory):
    """Trains the byte-pair merges and writes the four files of tokenizer/; returns the ids of the special tokens."""
    from tokenizers import AddedToken, models, pre_tokenizers, trainers

    trained = _byte_level(models.BPE())
    trained.train_from_iterator(_corpus(words), trainers.BpeTrainer(
        vocab_size=4096, min_frequency=2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
        special_tokens=[]))
    model = json.loads(trained.to_str())["model"]
    vocab = model["vocab"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]

    final = _byte_level(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, byte_fallback=False))
    for text, special in SPECIAL_TOKENS:
        token = AddedToken(text, lstrip=False, rstrip=False, single_word=False, normalized=False, special=special)
        (final.add_special_tokens if special else final.add_tokens)([token])
    directory.mkdir(parents=True, exist_ok=True)
    final.save(str(directory / "tokenizer.json"), pretty=True)
    ordered = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
    (directory / "vocab.json").write_text(json.dumps(ordered, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(f"{a} {b}" for a, b in merges) + "\n", encoding="utf-8")
    ids = {text: len(vocab) + i for i, (text, _) in enumerate(SPECIAL_TOKENS)}
    write_json(directory / "tokenizer_config.json", _tokenizer_config(ids))
    return ids


def _tokenizer_config(ids):
    added = {
        str(ids[t]): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": s}
        for t, s in SPECIAL_TOKENS
    }
    return {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": [t for t, s in SPECIAL_TOKENS if s and t != "<|endoftext|>"],
        "bos_token": None, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 131072,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }


class CaptionTokenizer:
    """Turns prompts into ids of one length: the chat template around the prompt, then right padding."""

    def __init__(self, directory):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.pad = self.tokenizer.token_to_id("<|endoftext|>")

    def __call__(self, prompts):
        """prompts -> (ids [batch, CAPTION_TOKENS], lengths [batch])."""
        rows = [e.ids for e in self.tokenizer.encode_batch([CHAT_FORMAT.format(prompt=p) for p in prompts])]
        longest = max(map(len, rows))
        assert longest <= CAPTION_TOKENS, f"a caption has {longest} tokens, more than {CAPTION_TOKENS}"
        ids = torch.full((len(rows), CAPTION_TOKENS), self.pad)
        for i, row in enumerate(rows):
            ids[i, :len(row)] = torch.tensor(row)
        return ids, torch.tensor([len(r) for r in rows])


# ----------------------------------------------------------------------------------------
# Modules and their files
# ----------------------------------------------------------------------------------------
def new_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)


def new_transformer():
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(**TRANSFORMER)


def text_encoder_config(special_ids):
    """The text encoder's configuration for a tokenizer with these special tokens."""
    rows = -(-(max(special_ids.values()) + 1) // 16) * 16
    return {**TEXT_ENCODER, "bos_token_id": special_ids["<|endoftext|>"], "eos_token_id": special_ids["<|im_end|>"],
            "vocab_size": rows}


def new_text_encoder(config):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    skip = ("torch_dtype", "transformers_version", "model_type")
    return Qwen3ForCausalLM(Qwen3Config(**{k: v for k, v in config.items() if k not in skip}))


def save_vae(vae, directory, scaling_factor, shift_factor):
    vae.to(torch.bfloat16).save_pretrained(directory)
    write_json(directory / "config.json", {"_class_name": "AutoencoderKL", "_diffusers_version": "0.36.0.dev0", **VAE,
                                           "scaling_factor": scaling_factor, "shift_factor": shift_factor})


def save_transformer(transformer, directory):
    transformer.to(torch.bfloat16).save_pretrained(directory)
    write_json(directory / "config.json", {"_class_name": "ZImageTransformer2DModel", "_diffusers_version": "0.36.0.dev0",
                                           **TRANSFORMER})


def save_text_encoder(text_encoder, config, directory):
    # Stored as the causal language model, like the real one: keys begin with "model.", no lm_head because it is tied.
    text_encoder.to(torch.bfloat16).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    write_json(directory / "config.json", {"architectures": ["Qwen3ForCausalLM"], **config})


def save_index_and_scheduler(directory):
    write_json(directory / "model_index.json", MODEL_INDEX)
    write_json(directory / "scheduler" / "scheduler_config.json",
               {"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.36.0.dev0", **SCHEDULER})


def replace_directory(new, old):
    """Puts a finished directory in the place of an old one, so that a reader never finds a half written one for long."""
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
