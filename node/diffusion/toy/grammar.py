"""What the toy can draw, and the captions that ask for it.

Owns vocabulary.json and the reference sheet; knows nothing of tensors' training or of the model.
Both train.py and evaluate.py read the world through this module.
"""
import itertools
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Scene:
    """One picture: indices into the vocabulary's icons, colours and places."""

    icon: int
    colour: int
    place: int


class Vocabulary:
    """The contents of vocabulary.json, with the lookups that both scripts need."""

    def __init__(self, path=HERE / "vocabulary.json"):
        self.data = json.loads(Path(path).read_text(encoding="utf-8"))
        self.icons, self.colours, self.places = (self.data[k] for k in ("icons", "colours", "places"))
        self.width, self.height = self.data["image"]["width"], self.data["image"]["height"]
        self.box_width, self.box_height = self.data["box"]["width"], self.data["box"]["height"]
        self.default_colour = self._index(self.colours, self.data["defaults"]["colour"])
        self.default_place = self._index(self.places, self.data["defaults"]["place"])

    @staticmethod
    def _index(entries, name):
        return next(i for i, e in enumerate(entries) if e["name"] == name)

    def scene(self, icon, colour, place):
        """Finds a scene by the names of its parts."""
        return Scene(self._index(self.icons, icon), self._index(self.colours, colour), self._index(self.places, place))

    def scenes(self):
        """All pictures that the toy can draw, in a fixed order."""
        return [Scene(*s) for s in itertools.product(range(len(self.icons)), range(len(self.colours)), range(len(self.places)))]

    def templates(self, scene, language):
        """The templates which can ask for a scene: what a template leaves unsaid must be the default."""
        return [t for t in self.data["templates"][language]
                if ("{colour}" in t or scene.colour == self.default_colour)
                and ("{place}" in t or scene.place == self.default_place)]

    def caption(self, scene, language, template, rng=None):
        """Fills a template; with a random generator, now and then by other than the canonical words."""

        def word(entry):
            names = entry[language]
            return rng.choice(names[1:]) if rng and len(names) > 1 and rng.random() < 0.4 else names[0]

        return template.format(icon=word(self.icons[scene.icon]), colour=word(self.colours[scene.colour]),
                               place=word(self.places[scene.place]))

    def random_caption(self, scene, rng):
        """Draws a caption as a user might type it: either language, any template, perhaps a capital and a full stop."""
        language = rng.choice(LANGUAGES)
        text = self.caption(scene, language, rng.choice(self.templates(scene, language)), rng)
        if language == "en" and rng.random() < 0.15:
            text = text[0].upper() + text[1:]
        if rng.random() < 0.15:
            text += "." if language == "en" else "。"
        return text

    def words(self):
        """Every word that captions are made of, for the tokenizer."""
        names = [n for group in (self.icons, self.colours, self.places) for e in group for k in LANGUAGES for n in e[k]]
        texts = names + [t for k in LANGUAGES for t in self.data["templates"][k]] + ["A", ".", "。"]
        # A Chinese numeral and measure word (一只) is a word of its own, as the article is in English.
        for cut in (r"\{\w+\}", r"\s", r"(?<=^一\w)(?=\w)"):
            texts = [piece for text in texts for piece in re.split(cut, text)]
        return [w for w in texts if w]


class Painter:
    """Composites the reference glyphs on the background colours."""

    def __init__(self, vocabulary, sheet=None):
        self.vocabulary = vocabulary
        self.cells = self._cells(Path(sheet or HERE / vocabulary.data["sheet"]["file"]))

    def _cells(self, path):
        layout = self.vocabulary.data["sheet"]
        sheet = np.asarray(Image.open(path).convert("RGBA"), dtype=np.float32)
        size, columns = layout["cell"], layout["columns"]
        corners = [(i // columns * size, i % columns * size) for i in range(len(self.vocabulary.icons))]
        return np.stack([sheet[y:y + size, x:x + size] for y, x in corners])

    def glyphs(self, colour):
        """All icons on one background colour: u8 [icons, height, width, 3]."""
        background = np.array(self.vocabulary.colours[colour]["rgb"], dtype=np.float32)
        alpha = self.cells[..., 3:] / 255
        return np.floor(alpha * self.cells[..., :3] + (1 - alpha) * background + 0.5).astype(np.uint8)

    def paint(self, scene):
        """The picture of a scene: u8 [height, width, 3]."""
        v = self.vocabulary
        picture = np.empty((v.height, v.width, 3), dtype=np.uint8)
        picture[:] = v.colours[scene.colour]["rgb"]
        self.crop(picture, scene.place)[:] = self.glyphs(scene.colour)[scene.icon]
        return picture

    def crop(self, picture, place):
        """The icon's box at a place, as a view."""
        v, corner = self.vocabulary, self.vocabulary.places[place]
        return picture[corner["y"]:corner["y"] + v.box_height, corner["x"]:corner["x"] + v.box_width]


def make_sheet(vocabulary, font_path, out):
    """Draws the reference sheet from the font; every glyph is fitted to one size and centred in its cell."""
    from PIL import ImageDraw, ImageFont

    layout, recipe = vocabulary.data["sheet"], vocabulary.data["font"]
    size, columns, inner = layout["cell"], layout["columns"], recipe["glyph"]
    font = ImageFont.truetype(str(font_path), recipe["size"])
    sheet = Image.new("RGBA", (columns * size, -(-len(vocabulary.icons) // columns) * size))
    for i, icon in enumerate(vocabulary.icons):
        glyph = Image.new("RGBA", (192, 192))
        ImageDraw.Draw(glyph).text((20, 20), chr(int(icon["code_point"], 16)), font=font, embedded_color=True)
        glyph = glyph.crop(glyph.getbbox())
        scale = inner / max(glyph.size)
        glyph = glyph.resize([max(1, round(s * scale)) for s in glyph.size], Image.Resampling.LANCZOS)
        left, top = ((size - s) // 2 for s in glyph.size)
        sheet.paste(glyph, (i % columns * size + left, i // columns * size + top))
    sheet.save(out, optimize=True)


def acceptance_set(vocabulary, count=100, seed=20261121):
    """Draws the fixed acceptance prompts: half English, half Chinese; every icon, colour and place comes round."""
    rng = random.Random(seed)

    def rounds(n):
        """Endless shuffled rounds, so that no value comes up much more often than another."""
        while True:
            yield from rng.sample(range(n), n)

    parts = [rounds(len(x)) for x in (vocabulary.icons, vocabulary.colours, vocabulary.places)]
    cases = []
    for i in range(count):
        scene, language = Scene(*(next(p) for p in parts)), LANGUAGES[i % len(LANGUAGES)]
        prompt = vocabulary.caption(scene, language, rng.choice(vocabulary.templates(scene, language)))
        cases.append({"prompt": prompt, "seed": 1000 + i, "language": language, "icon": vocabulary.icons[scene.icon]["name"],
                      "colour": vocabulary.colours[scene.colour]["name"], "place": vocabulary.places[scene.place]["name"]})
    return cases
