"""Trains the transformer and the text encoder together on the table of latents.

caption → text encoder → transformer; noisy latents, t → transformer → velocity: rectified flow, mean squared error.
"""
import copy
import math
import random
import time

import torch
import torch.nn.functional as F

import layout
import network

BATCH = 48
CAPTIONS_PER_SCENE = 48  # captions are drawn before training: tokenizing in the loop would cost time
LEARNING_RATE = 2e-3
EMA_DECAY = 0.998
SHIFT = 3.0
PURE_NOISE = 0.08  # this part of a batch starts where sampling starts, the hardest and most decisive place


class Examples:
    """Scenes as latent patches, each with a pool of captions."""

    def __init__(self, vocabulary, latents, tokenizer, seed):
        rng = random.Random(seed)
        self.patches = network.patchify(latents)
        pools = [tokenizer([vocabulary.random_caption(s, rng) for _ in range(CAPTIONS_PER_SCENE)]) for s in vocabulary.scenes()]
        self.ids, self.lengths = (torch.stack(part) for part in zip(*pools))
        # The text encoder sees only as many columns as the longest caption needs.
        self.ids = self.ids[..., :int(self.lengths.max())].contiguous()

    def batch(self, size):
        scene, caption = torch.randint(len(self.patches), (size,)), torch.randint(CAPTIONS_PER_SCENE, (size,))
        return self.patches[scene], self.ids[scene, caption], self.lengths[scene, caption]


class Models:
    """The two trained networks and the average of their weights."""

    def __init__(self, text_encoder_config):
        self.text_encoder = layout.new_text_encoder(text_encoder_config)
        self.transformer = layout.new_transformer()
        initialise(self.transformer)
        self.average = [copy.deepcopy(m).requires_grad_(False) for m in (self.text_encoder, self.transformer)]
        self.updates = 0

    def trained(self):
        return (self.text_encoder, self.transformer)

    def parameters(self):
        return [p for m in self.trained() for p in m.parameters() if p.requires_grad]

    def update_average(self):
        self.updates += 1
        decay = min(EMA_DECAY, (1 + self.updates) / (10 + self.updates))
        for average, module in zip(self.average, self.trained()):
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)


def initialise(transformer):
    """Sets what the default initialisation leaves unfit: gates half open, the output zero, pad tokens not zero."""
    for name, p in transformer.named_parameters():
        if name.endswith("pad_token"):
            torch.nn.init.normal_(p, std=0.02)
        elif "adaLN_modulation" in name:
            torch.nn.init.zeros_(p) if name.endswith("bias") else torch.nn.init.normal_(p, std=0.01)
    for block in [*transformer.noise_refiner, *transformer.layers]:
        scale_msa, gate_msa, scale_mlp, gate_mlp = block.adaLN_modulation[0].bias.data.chunk(4)
        gate_msa.fill_(0.5)
        gate_mlp.fill_(0.5)
    torch.nn.init.zeros_(transformer.all_final_layer["2-1"].linear.weight)
    torch.nn.init.zeros_(transformer.all_final_layer["2-1"].linear.bias)


def new_optimizers(models):
    """Muon for the matrices inside blocks; AdamW for everything else."""
    inside = ("attention.to_", "feed_forward.w", "_proj.weight")
    # The last text layer and the final norm do not reach hidden_states[-2]: they stay as they were initialised.
    last = len(models.text_encoder.model.layers) - 1
    matrices, rest = [], []
    for module in models.trained():
        for name, p in module.named_parameters():
            if name.startswith((f"model.layers.{last}.", "model.norm.")) or name == "x_pad_token":
                p.requires_grad_(False)
            else:
                (matrices if any(part in name for part in inside) else rest).append(p)
    return [torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)]


def draw_sigmas(count):
    """Noise levels as the shifted schedule spaces them, some of them pure noise."""
    u = torch.rand(count)
    u[:int(count * PURE_NOISE)] = 1
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def flow_loss(models, positions, clean, ids, lengths, noise, sigma):
    """Mean squared error of the velocity, for given noise and noise levels."""
    noisy = torch.lerp(clean, noise, sigma[:, None, None])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        caption = network.embed_caption(models.transformer, network.encode_text(models.text_encoder, ids), lengths, positions)
        output = network.velocity(models.transformer, noisy, 1 - sigma, caption, positions)
    return F.mse_loss(output.float(), clean - noise)


def learning_rate_factor(progress, warmup=0.01, floor=0.01):
    """A short warm-up, then a cosine; progress is time spent over time given."""
    return min(progress / warmup, 1.0) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def save_checkpoint(models, path):
    """Writes the trained weights and their average, so that an interrupted training can go on."""
    trained, average = ([m.state_dict() for m in group] for group in (models.trained(), models.average))
    partial = path.with_suffix(".partial")
    torch.save({"trained": trained, "average": average, "updates": models.updates}, partial)
    partial.rename(path)


def load_checkpoint(models, path):
    """Reads what save_checkpoint wrote; the optimizers begin anew."""
    state = torch.load(path, weights_only=True)
    for group, saved in ((models.trained(), state["trained"]), (models.average, state["average"])):
        for module, weights in zip(group, saved):
            module.load_state_dict(weights)
    models.updates = state["updates"]


def train_denoiser(models, examples, minutes, on_checkpoint, checkpoint_minutes, log, compile_loss=True):
    """Trains for a given time; on_checkpoint(models, elapsed minutes) is called now and then and at the end."""
    optimizers, positions = new_optimizers(models), network.Positions()
    loss_of = torch.compile(flow_loss) if compile_loss else flow_loss
    start, step, mean_loss, next_checkpoint = time.monotonic(), 0, None, checkpoint_minutes
    while (elapsed := (time.monotonic() - start) / 60) < minutes:
        factor = learning_rate_factor(elapsed / minutes)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * factor
        clean, ids, lengths = examples.batch(BATCH)
        loss = loss_of(models, positions, clean, ids, lengths, torch.randn_like(clean), draw_sigmas(BATCH))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        models.update_average()
        step += 1
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0:
            log(f"denoiser step {step} at {elapsed:.1f} min: loss {mean_loss:.4f}")
        if elapsed >= next_checkpoint:
            on_checkpoint(models, elapsed)
            next_checkpoint = (time.monotonic() - start) / 60 + checkpoint_minutes
    on_checkpoint(models, minutes)
