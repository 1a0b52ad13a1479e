#!/usr/bin/env python3
"""Measures the toy model by its acceptance prompts, with diffusers' own ZImagePipeline.

    python evaluate.py [--model DIR] [--sheet PNG] [--report JSON] [--steps N]

A picture is right in its icon when, among all reference glyphs composited on the asked background, the asked one has
the smallest mean squared RGB error to the picture's box at the asked place. It is right in its background when the
asked colour is the nearest (squared RGB distance) to the per-channel median of all pixels outside that box.
Exits with 1 when the icons are right in less than 90 % or the backgrounds in less than 95 % of the pictures, in either language.
"""
import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

import grammar

ICONS_MIN, BACKGROUNDS_MIN = 0.90, 0.95
BATCH = 20


class Judge:
    """Says of a picture whether it shows what was asked for."""

    def __init__(self, vocabulary, painter):
        self.vocabulary, self.painter = vocabulary, painter
        self.colours = np.array([c["rgb"] for c in vocabulary.colours], dtype=np.float64)

    def icon(self, picture, scene):
        """The icon that the box at the asked place resembles most."""
        box = self.painter.crop(picture, scene.place).astype(np.float64)
        errors = ((self.painter.glyphs(scene.colour) - box) ** 2).mean(axis=(1, 2, 3))
        return int(errors.argmin())

    def colour(self, picture, scene):
        """The named colour that the picture outside the box resembles most."""
        outside = np.ones(picture.shape[:2], dtype=bool)
        self.painter.crop(outside, scene.place)[:] = False
        median = np.median(picture[outside], axis=0)
        return int(((self.colours - median) ** 2).sum(axis=1).argmin())

    def error(self, picture, scene):
        """The root mean squared RGB error to the picture that was asked for."""
        return float(np.sqrt(((picture.astype(np.float64) - self.painter.paint(scene)) ** 2).mean()))

    def report(self, pictures, cases):
        """Counts by language, and the cases that went wrong."""
        languages = {k: {"pictures": 0, "icons_right": 0, "backgrounds_right": 0} for k in grammar.LANGUAGES}
        wrong, errors = [], []
        for picture, case in zip(pictures, cases, strict=True):
            scene = self.vocabulary.scene(case["icon"], case["colour"], case["place"])
            icon, colour = self.icon(picture, scene), self.colour(picture, scene)
            count = languages[case["language"]]
            count["pictures"] += 1
            count["icons_right"] += icon == scene.icon
            count["backgrounds_right"] += colour == scene.colour
            errors.append(self.error(picture, scene))
            if (icon, colour) != (scene.icon, scene.colour):
                wrong.append({"prompt": case["prompt"], "seed": case["seed"], "icon": self.vocabulary.icons[icon]["name"],
                              "colour": self.vocabulary.colours[colour]["name"]})
        return {"languages": languages, "mean_rms_error": round(float(np.mean(errors)), 2), "wrong": wrong}


def accepted(report):
    return all(c["icons_right"] >= ICONS_MIN * c["pictures"] and c["backgrounds_right"] >= BACKGROUNDS_MIN * c["pictures"]
               for c in report["languages"].values())


def contact_sheet(pictures, path, columns=10):
    """Saves all pictures in one, for the eye."""
    from PIL import Image

    blank = np.full_like(pictures[0], 90)
    rows = [pictures[i:i + columns] for i in range(0, len(pictures), columns)]
    rows[-1] = rows[-1] + [blank] * (columns - len(rows[-1]))
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(path, optimize=True)


def draw(pipeline, vocabulary, cases, steps):
    """Runs the reference pipeline over the cases: u8 pictures in their order."""
    import torch

    pictures = []
    for first in range(0, len(cases), BATCH):
        part = cases[first:first + BATCH]
        images = pipeline(prompt=[c["prompt"] for c in part], height=vocabulary.height, width=vocabulary.width,
                          num_inference_steps=steps, guidance_scale=0.0, output_type="np",
                          generator=[torch.Generator("cpu").manual_seed(c["seed"]) for c in part]).images
        pictures += list((images * 255).round().astype(np.uint8))
    return pictures


def load_pipeline(directory):
    import torch
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(str(directory), torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure(directory, steps=8):
    """Draws and judges the acceptance cases with the model in a directory: (pictures, report)."""
    vocabulary = grammar.Vocabulary()
    cases = json.loads((grammar.HERE / "acceptance.json").read_text(encoding="utf-8"))["cases"]
    pictures = draw(load_pipeline(directory), vocabulary, cases, steps)
    return pictures, Judge(vocabulary, grammar.Painter(vocabulary)).report(pictures, cases)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=grammar.HERE / "model")
    parser.add_argument("--sheet", type=Path, help="save all pictures as one PNG")
    parser.add_argument("--report", type=Path, help="save the figures as JSON")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()

    pictures, report = measure(arguments.model, arguments.steps)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if arguments.sheet:
        contact_sheet(pictures, arguments.sheet)
    if arguments.report:
        arguments.report.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(0 if accepted(report) else 1)


if __name__ == "__main__":
    main()
