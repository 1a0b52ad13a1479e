#!/usr/bin/env python3
"""Makes the toy model: reference sheet -> tokenizer -> latents -> denoiser -> VAE -> model directory.

    python train.py                         everything, into model/; about an hour and a half on two CPU cores
    python train.py --minutes 10            the denoiser for 10 minutes only (the schedule adapts to the time)
    python train.py --resume                go on from the checkpoints in the work directory
    python train.py --vae-only              leave the denoiser as it is (with --resume: only train the VAE further)
    python train.py --check                 compare the lean forward passes with the reference modules, train nothing

The reference sheet is made only with --font; otherwise the committed one is used, so that no font is needed.
Checkpoints and the log go to --work. Times are wall-clock: on a busy machine give more.
The seed fixes data and noise, but a training that ends by the clock does not repeat to the bit.
"""
import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would fight over the cores with anything else
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import autoencoder
import denoiser
import evaluate
import grammar
import layout
import network


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=grammar.HERE / "model", help="the model directory")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "toy", help="checkpoints and the log")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, to draw the reference sheet anew")
    parser.add_argument("--minutes", type=float, default=30, help="time for the denoiser")
    parser.add_argument("--decoder-minutes", type=float, default=45)
    parser.add_argument("--encoder-minutes", type=float, default=10)
    parser.add_argument("--latent-noise", type=float, default=0.12, help="error that the decoder learns to forgive")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="train without torch.compile: slower steps, but none to wait for")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--vae-only", action="store_true")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


class Log:
    """Prints a line and keeps it in a file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, text):
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Factory:
    """Everything that the stages share: the world, its latents, the tokenizer and the networks."""

    def __init__(self, work, seed):
        self.vocabulary = grammar.Vocabulary()
        self.painter = grammar.Painter(self.vocabulary)
        self.pictures = autoencoder.Pictures(self.vocabulary, self.painter)
        self.latents = autoencoder.principal_latents(self.pictures)
        # As in the configuration of the VAE: what the transformer sees is (latents - shift) * scale.
        self.shift, self.scale = round(self.latents.mean().item(), 6), round(1 / self.latents.std().item(), 6)
        self.tokenizer_directory = work / "tokenizer"
        special_ids = layout.train_tokenizer(self.vocabulary.words(), self.tokenizer_directory)
        self.tokenizer = layout.CaptionTokenizer(self.tokenizer_directory)
        self.text_encoder_config = layout.text_encoder_config(special_ids)
        self.models = denoiser.Models(self.text_encoder_config)
        self.examples = denoiser.Examples(self.vocabulary, (self.latents - self.shift) * self.scale, self.tokenizer, seed)

    def save_denoiser(self, directory):
        """Saves tokenizer, text encoder (averaged weights) and transformer (averaged weights)."""
        for part in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
            copy_file(self.tokenizer_directory / part, directory / "tokenizer" / part)
        text_encoder, transformer = layout.new_text_encoder(self.text_encoder_config), layout.new_transformer()
        for module, average in zip((text_encoder, transformer), self.models.average):
            module.load_state_dict(average.state_dict())
        layout.save_text_encoder(text_encoder, self.text_encoder_config, directory / "text_encoder")
        layout.save_transformer(transformer, directory / "transformer")
        layout.save_index_and_scheduler(directory)

    def save_vae(self, vae, directory):
        layout.save_vae(vae, directory / "vae", self.scale, self.shift)


def copy_file(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def train_denoiser(factory, args, log):
    checkpoint = args.work / "denoiser.pt"
    if args.resume and checkpoint.exists():
        denoiser.load_checkpoint(factory.models, checkpoint)
        log(f"goes on from update {factory.models.updates}")
    denoiser.train_denoiser(factory.models, factory.examples, args.minutes, log=log, checkpoint_minutes=3,
                            on_checkpoint=lambda models, _: denoiser.save_checkpoint(models, checkpoint),
                            compile_loss=not args.no_compile)
    factory.save_denoiser(args.out)


def train_vae(factory, args, log):
    vae, checkpoint = layout.new_vae(), args.work / "vae.pt"
    if args.resume and checkpoint.exists():
        vae.load_state_dict(torch.load(checkpoint, weights_only=True))
    crops = autoencoder.Crops(factory.vocabulary, factory.pictures)
    autoencoder.train_decoder(vae, factory.pictures, crops, factory.latents, args.decoder_minutes, args.latent_noise, log)
    autoencoder.train_encoder(vae, factory.pictures, factory.latents, args.encoder_minutes, log)
    torch.save(vae.state_dict(), checkpoint)
    log(f"vae: {autoencoder.quality(vae, factory.pictures, factory.latents)}")
    factory.save_vae(vae, args.out)


@torch.no_grad()
def check(factory, log, tolerance=1e-4):
    """Compares network.py with transformers' Qwen3 and diffusers' transformer, on random weights and two captions."""
    text_encoder, transformer = factory.models.trained()
    for p in (*text_encoder.parameters(), *transformer.parameters()):
        p.add_(0.05 * torch.randn_like(p))
    ids, lengths = factory.tokenizer(["a cat on the left on a blue background", "猫"])
    features = network.encode_text(text_encoder, ids)
    reference = text_encoder.model(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    text_error = (features - reference).abs().max().item()

    positions, latents, t = network.Positions(), torch.randn(2, 16, 16, 16), torch.tensor([0.3, 0.8])
    caption = network.embed_caption(transformer, features, lengths, positions)
    output = network.unpatchify(network.velocity(transformer, network.patchify(latents), t, caption, positions))
    reference = transformer([x.unsqueeze(1) for x in latents], t, [f[:n] for f, n in zip(features, lengths)], return_dict=False)[0]
    error = max((o - r[:, 0]).abs().max().item() for o, r in zip(output, reference))
    log(f"largest differences: text encoder {text_error:.2g}, transformer {error:.2g}")
    assert max(text_error, error) < tolerance


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    log = Log(args.work / "train.log")
    # Before anything is compiled: changed afterwards, compiled code returned a loss of zero.
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.font:
        vocabulary = grammar.Vocabulary()
        grammar.make_sheet(vocabulary, args.font, grammar.HERE / vocabulary.data["sheet"]["file"])
    factory = Factory(args.work, args.seed)
    if args.check:
        return check(factory, log)
    if not args.vae_only:
        train_denoiser(factory, args, log)
    train_vae(factory, args, log)
    _, report = evaluate.measure(args.out)
    log(f"acceptance: {report}")


if __name__ == "__main__":
    main()
