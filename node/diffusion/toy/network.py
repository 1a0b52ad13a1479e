"""The transformer's and the text encoder's forward passes for batches of one shape.

diffusers' ZImageTransformer2DModel takes Python lists of pictures and captions of any size, which costs most of the
time of so small a model. Here every caption has CAPTION_TOKENS rows and every picture IMAGE_TOKENS, so that a batch is
one tensor. The parameters are those of the reference modules; `train.py --check` compares the results with theirs.
"""
import torch
import torch.nn.functional as F

from layout import CAPTION_TOKENS, IMAGE_TOKENS, TRANSFORMER


# ----------------------------------------------------------------------------------------
# Text encoder: Qwen3 up to hidden_states[-2]
# ----------------------------------------------------------------------------------------
def encode_text(model, ids):
    """ids [batch, tokens] → caption features [batch, tokens, hidden]: all layers but the last, no final norm.

    Attention is causal and the padding is on the right, so rows of real tokens do not depend on it.
    """
    config, inner = model.config, model.model
    head_dim = config.head_dim
    rotary = _half_split_table(ids.shape[1], head_dim)
    x = F.embedding(ids, inner.embed_tokens.weight)
    for layer in inner.layers[:-1]:
        attention = layer.self_attn
        y = _rms(x, layer.input_layernorm.weight, config.rms_norm_eps)
        q, k, v = (p(y).unflatten(-1, (-1, head_dim)).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        q = _rotate_half_split(_rms(q, attention.q_norm.weight, config.rms_norm_eps), rotary)
        k = _rotate_half_split(_rms(k, attention.k_norm.weight, config.rms_norm_eps), rotary)
        repeat = config.num_attention_heads // config.num_key_value_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        x = x + attention.o_proj(y.transpose(1, 2).flatten(2))
        y = _rms(x, layer.post_attention_layernorm.weight, config.rms_norm_eps)
        x = x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
    return x


def _half_split_table(length, head_dim, theta=1e6):
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)


def _rotate_half_split(x, table):
    cos, sin = table
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


# ----------------------------------------------------------------------------------------
# Transformer
# ----------------------------------------------------------------------------------------
class Positions:
    """RoPE tables of the one shape: captions take frames 1..CAPTION_TOKENS, the picture the frame after."""

    def __init__(self):
        rows, columns = IMAGE_TOKENS
        caption = torch.tensor([(1 + k, 0, 0) for k in range(CAPTION_TOKENS)])
        image = torch.tensor([(CAPTION_TOKENS + 1, y, x) for y in range(rows) for x in range(columns)])
        self.caption, self.image = self._table(caption), self._table(image)
        self.both = tuple(torch.cat(pair) for pair in zip(self.image, self.caption))

    @staticmethod
    def _table(ids):
        parts = []
        for axis, d in enumerate(TRANSFORMER["axes_dims"]):
            frequencies = TRANSFORMER["rope_theta"] ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
            parts.append(torch.outer(ids[:, axis].double(), frequencies).float())
        angles = torch.cat(parts, -1)
        return angles.cos(), angles.sin()


def patchify(latents):
    """[batch, 16, rows * 2, columns * 2] → [batch, rows * columns, 64], the channel fastest inside a patch."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)


def unpatchify(tokens):
    """The inverse of patchify."""
    rows, columns = IMAGE_TOKENS
    x = tokens.view(len(tokens), rows, columns, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(len(tokens), -1, 2 * rows, 2 * columns)


def embed_caption(model, features, lengths, positions):
    """Caption features → refined caption tokens; rows beyond a caption's length become cap_pad_token and stay visible."""
    features = F.pad(features, (0, 0, 0, CAPTION_TOKENS - features.shape[1]))
    x = model.cap_embedder[1](_rms(features, model.cap_embedder[0].weight, TRANSFORMER["norm_eps"]))
    valid = torch.arange(x.shape[1]) < lengths[:, None]
    x = torch.where(valid[..., None], x, model.cap_pad_token.to(x.dtype))
    for block in model.context_refiner:
        x = _block(block, x, positions.caption, None)
    return x


def velocity(model, tokens, t, caption, positions):
    """Noisy patches [batch, tokens, 64], t = 1 - sigma, refined caption → raw model output (clean minus noise), as patches."""
    c = _embed_time(model.t_embedder, t * TRANSFORMER["t_scale"])
    x = model.all_x_embedder["2-1"](tokens)
    for block in model.noise_refiner:
        x = _block(block, x, positions.image, c)
    x = torch.cat([x, caption], 1)
    for block in model.layers:
        x = _block(block, x, positions.both, c)
    final = model.all_final_layer["2-1"]
    x = F.layer_norm(x[:, :tokens.shape[1]].float(), x.shape[-1:], eps=1e-6)
    return final.linear(x * (1 + final.adaLN_modulation(c)).unsqueeze(1))


def _embed_time(embedder, u):
    half = embedder.frequency_embedding_size // 2
    frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half) / half)
    angles = u[:, None] * frequencies
    return embedder.mlp(torch.cat([angles.cos(), angles.sin()], -1))


def _rms(x, weight, eps):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _rotate_interleaved(x, table):
    cos, sin = (t[:, None] for t in table)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _attention(attention, x, table):
    # One product for the three projections: at this size calls cost as much as arithmetic.
    weight = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
    q, k, v = F.linear(x, weight).unflatten(-1, (3, attention.heads, -1)).unbind(2)
    q = _rotate_interleaved(_rms(q, attention.norm_q.weight, 1e-5), table)
    k = _rotate_interleaved(_rms(k, attention.norm_k.weight, 1e-5), table)
    q, k, v = (y.to(v.dtype).transpose(1, 2) for y in (q, k, v))
    return attention.to_out[0](_attend(q, k, v).transpose(1, 2).flatten(2))


def _attend(q, k, v):
    """softmax(q kᵀ / √d) v, written out: the fused kernel's backward pass takes a third of a training step on a CPU."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def _feed_forward(layer, x):
    gate, up = F.linear(x, torch.cat([layer.w1.weight, layer.w3.weight])).chunk(2, -1)
    return layer.w2(F.silu(gate) * up)


def _block(block, x, table, c):
    eps = TRANSFORMER["norm_eps"]
    if c is None:
        scale_msa = scale_mlp = gate_msa = gate_mlp = 1.0
    else:
        scale_msa, gate_msa, scale_mlp, gate_mlp = block.adaLN_modulation(c).unsqueeze(1).float().chunk(4, -1)
        scale_msa, scale_mlp, gate_msa, gate_mlp = 1 + scale_msa, 1 + scale_mlp, gate_msa.tanh(), gate_mlp.tanh()
    y = _attention(block.attention, _rms(x, block.attention_norm1.weight, eps) * scale_msa, table)
    x = x + gate_msa * _rms(y, block.attention_norm2.weight, eps)
    y = _feed_forward(block.feed_forward, _rms(x, block.ffn_norm1.weight, eps) * scale_mlp)
    return x + gate_mlp * _rms(y, block.ffn_norm2.weight, eps)


# ----------------------------------------------------------------------------------------
# Sampling
# ----------------------------------------------------------------------------------------
def sigmas(steps, shift=3.0):
    """The static shifted schedule of FlowMatchEulerDiscreteScheduler, with the final zero."""
    base = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * base / (1 + (shift - 1) * base), torch.zeros(1)])


@torch.no_grad()
def sample(transformer, text_encoder, ids, lengths, noise, steps=8):
    """Euler's method from noise to latents (scaled, as the transformer knows them), in the arithmetic of the caller."""
    positions, schedule = Positions(), sigmas(steps)
    caption = embed_caption(transformer, encode_text(text_encoder, ids), lengths, positions)
    x = patchify(noise)
    for sigma, following in zip(schedule[:-1], schedule[1:]):
        t = (1 - sigma).expand(len(x))
        x = x - (following - sigma) * velocity(transformer, x, t, caption, positions).float()
    return unpatchify(x)
