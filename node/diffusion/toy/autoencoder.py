"""The toy's latents, and the VAE that is trained to encode and decode them.

The latents are fixed before any training: the 16 values of a cell are the leading principal components of its 8x8 pixels.
So the denoiser need not wait for a VAE, encoder and decoder are two plain regressions, and the decoder can be
trained on latents with the kind of error that a denoiser leaves. (A VAE trained as a whole came out blurred in the
time that two shared CPU cores allow.)
"""
import math
import time

import torch

import layout

CELL = 8
ICON_WEIGHT = 4.0  # an error in the icon's box counts this much; the flat background would drown it
LEARNING_RATE = 2e-3
BATCH = 4
CROP_CELLS = 10  # side of the crops of a decoder's first phase: the icon's 8 cells and some background
CROP_PHASE = 0.6  # the part of the decoder's time that goes to crops
LOG_VARIANCE = -8.0  # what the encoder's second half learns to say; a picture has one right latent


class Pictures:
    """All scenes as one tensor in [-1, 1], with the weight of every pixel."""

    def __init__(self, vocabulary, painter):
        self.scenes = vocabulary.scenes()
        pictures = torch.stack([torch.from_numpy(painter.paint(s)) for s in self.scenes])
        self.pixels = (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()
        by_place = torch.ones(len(vocabulary.places), vocabulary.height, vocabulary.width)
        for place, weights in enumerate(by_place):
            painter.crop(weights, place).fill_(ICON_WEIGHT)
        self.weights = (by_place / by_place.mean(dim=(1, 2), keepdim=True))[[s.place for s in self.scenes]].unsqueeze(1)

    def in_box(self):
        return self.weights > 1


def principal_latents(pictures):
    """pictures → latents [scenes, 16, height / 8, width / 8]: the principal components of every cell.

    The components come from the cells inside the icons' boxes. Each is divided by the square root of its spread, half
    way to whitening: full whitening would make faint detail as important to the denoiser as the colour of a cell.
    """
    n, _, h, w = pictures.pixels.shape
    cells = pictures.pixels.view(n, 3, h // CELL, CELL, w // CELL, CELL).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 3 * CELL**2)
    inside = cells[pictures.in_box()[:, 0, ::CELL, ::CELL].flatten(1)]
    mean = inside.mean(0)
    values, vectors = torch.linalg.eigh((inside - mean).T @ (inside - mean) / len(inside))
    count = layout.VAE["latent_channels"]
    spread, vectors = values[-count:].sqrt(), vectors[:, -count:]
    return ((cells - mean) @ (vectors / spread.sqrt())).view(n, h // CELL, w // CELL, count).permute(0, 3, 1, 2).contiguous()


def cosine_by_clock(elapsed, seconds, warmup=10.0, floor=0.02):
    """The learning rate's factor: a short warm-up, then a cosine that ends when the time is up."""
    return min(elapsed / warmup, 1.0) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(elapsed / seconds, 1.0))))


class _Optimizer:
    """Muon for the convolution kernels and linear maps, seen as matrices; AdamW for biases and norms.

    torch's Muon takes matrices only. Each kernel gets a matrix that shares its memory, and lends it the gradient.
    """

    def __init__(self, module):
        self.parameters = list(module.parameters())
        self.kernels = [p for p in self.parameters if p.ndim > 1]
        self.matrices = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in self.kernels]
        self.parts = [torch.optim.Muon(self.matrices, lr=LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
                      torch.optim.AdamW([p for p in self.parameters if p.ndim == 1], lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)]

    def step(self, loss, factor):
        """Takes one step down the loss, at a part of the learning rate."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for matrix, kernel in zip(self.matrices, self.kernels):
            matrix.grad = kernel.grad.view_as(matrix)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = LEARNING_RATE * factor
            part.step()
        for p in (*self.parameters, *self.matrices):
            p.grad = None


def _train(name, module, loss_of, minutes, log):
    """Trains one half of the VAE for a given time; loss_of gets the part of the time that has passed."""
    optimizer, seconds = _Optimizer(module), minutes * 60
    start, step = time.monotonic(), 0
    while (elapsed := time.monotonic() - start) < seconds:
        loss = loss_of(elapsed / seconds)
        optimizer.step(loss, cosine_by_clock(elapsed, seconds))
        step += 1
        if step % 100 == 0:
            log(f"{name} step {step} at {elapsed:.0f} s: loss {loss.item():.4f}")


class Crops:
    """Draws windows around the icons, in cells.

    A picture is mostly flat background, which is learnt at once; windows make a step two and a half times as cheap. The
    group norms see other statistics in a window than in a picture, so a last phase has to use whole pictures.
    """

    def __init__(self, vocabulary, pictures):
        self.columns, self.rows = vocabulary.width // CELL, vocabulary.height // CELL
        self.box = vocabulary.box_width // CELL
        self.corners = [(p["x"] // CELL, p["y"] // CELL) for p in vocabulary.places]
        self.places = torch.tensor([s.place for s in pictures.scenes])

    def draw(self, size):
        """Picks scenes of one place and a window that contains its box: (scene indices, row, column)."""
        place = int(torch.randint(len(self.corners), ()))
        scenes = (self.places == place).nonzero()[:, 0]
        x, y = self.corners[place]
        row, column = (self._start(corner, length) for corner, length in ((y, self.rows), (x, self.columns)))
        return scenes[torch.randint(len(scenes), (size,))], row, column

    def _start(self, corner, length):
        low, high = max(0, corner + self.box - CROP_CELLS), min(corner, length - CROP_CELLS)
        return int(torch.randint(low, high + 1, ()))


def _window(x, row, column, unit):
    return x[..., row * unit:(row + CROP_CELLS) * unit, column * unit:(column + CROP_CELLS) * unit]


def train_decoder(vae, pictures, crops, latents, minutes, noise, log):
    """latents (with a random amount of noise, up to `noise` times their spread) → pictures, weighted L1."""
    spread = latents.std()

    def loss_of(progress):
        index, row, column = crops.draw(BATCH)
        z, pixels, weights = latents[index], pictures.pixels[index], pictures.weights[index]
        if progress < CROP_PHASE:
            z, pixels, weights = _window(z, row, column, 1), _window(pixels, row, column, CELL), _window(weights, row, column, CELL)
        amount = noise * spread * torch.rand(BATCH, 1, 1, 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            decoded = vae.decode(z + amount * torch.randn_like(z)).sample.float()
        return ((decoded - pixels).abs() * weights).mean()

    _train("decoder", vae.decoder, loss_of, minutes, log)


def train_encoder(vae, pictures, latents, minutes, log):
    """pictures → latents, mean squared error; the log variance learns a constant."""

    def loss_of(_progress):
        index = torch.randint(len(latents), (BATCH,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(pictures.pixels[index]).latent_dist
        return (posterior.mean.float() - latents[index]).square().mean() \
            + 0.01 * (posterior.logvar.float() - LOG_VARIANCE).square().mean()

    _train("encoder", vae.encoder, loss_of, minutes, log)


def decibels(mean_square, peak=1.0):
    return -10 * math.log10(float(mean_square) / peak**2)


@torch.no_grad()
def quality(vae, pictures, latents, count=96):
    """Peak signal-to-noise ratios in dB in the icons' boxes: of decoding the table, and of encoding and decoding."""
    index = torch.linspace(0, len(latents) - 1, count).long()
    pixels, box = pictures.pixels[index], pictures.in_box()[index]

    def measure(z):
        decoded = torch.cat([vae.decode(chunk).sample for chunk in z.split(16)]).clamp(-1, 1)
        error = (decoded - pixels).square() / 4
        return decibels(error[box.expand_as(error)].mean())

    encoded = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(16)])
    return {"decode_db": measure(latents[index]), "encode_decode_db": measure(encoded)}
