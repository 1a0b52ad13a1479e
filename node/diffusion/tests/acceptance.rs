//! The bundled model draws what it is asked for, in English and in Chinese alike.
//!
//! The judgement is that of `toy/evaluate.py`: a picture is right in its icon when, among all reference
//! glyphs on the asked background, the asked one is nearest to the picture's box at the asked place;
//! it is right in its background when the asked colour is nearest to the median of all pixels outside
//! that box. The prompts are those of `toy/acceptance.json`, the noise is our own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atelier_diffusion::{Image, Pipeline, Request};
use burn_flex::{Flex, FlexDevice};
use serde::Deserialize;

const ICONS_RIGHT_MIN: f64 = 0.90;
const BACKGROUNDS_RIGHT_MIN: f64 = 0.95;

#[derive(Deserialize)]
struct Cases {
    steps: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    seed: u64,
    language: String,
    icon: String,
    colour: String,
    place: String,
}

#[derive(Deserialize)]
struct Vocabulary {
    image: Size,
    #[serde(rename = "box")]
    cut: Size,
    sheet: Sheet,
    icons: Vec<Icon>,
    colours: Vec<Colour>,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Size {
    width: usize,
    height: usize,
}

#[derive(Deserialize)]
struct Sheet {
    file: String,
    columns: usize,
    cell: usize,
}

#[derive(Deserialize)]
struct Icon {
    name: String,
}

#[derive(Deserialize)]
struct Colour {
    name: String,
    rgb: [u8; 3],
}

#[derive(Deserialize)]
struct Place {
    name: String,
    x: usize,
    y: usize,
}

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("toy")
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let text = std::fs::read(toy().join(file)).expect("a file of the toy");
    serde_json::from_slice(&text).expect("JSON of the toy's form")
}

/// The reference glyphs: red, green, blue and opacity of each pixel of the sheet.
struct Glyphs {
    pixels: Vec<u8>,
    width: usize,
}

impl Glyphs {
    fn read(file: &str) -> Self {
        let bytes = std::fs::read(toy().join(file)).expect("the sheet");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a sheet of a usual size")];
        let frame = reader.next_frame(&mut pixels).expect("a whole PNG");
        assert_eq!(frame.color_type, png::ColorType::Rgba);
        Self { pixels, width: frame.width as usize }
    }

    /// One pixel of a glyph on a background.
    fn composite(
        &self,
        sheet: &Sheet,
        icon: usize,
        at: [usize; 2],
        background: [u8; 3],
    ) -> [f64; 3] {
        let x = icon % sheet.columns * sheet.cell + at[0];
        let y = icon / sheet.columns * sheet.cell + at[1];
        let pixel = &self.pixels[4 * (y * self.width + x)..][..4];
        let alpha = f64::from(pixel[3]) / 255.0;
        let mix = |i: usize| alpha * f64::from(pixel[i]) + (1.0 - alpha) * f64::from(background[i]);
        [0, 1, 2].map(|i| (mix(i) + 0.5).floor())
    }
}

struct Judge {
    vocabulary: Vocabulary,
    glyphs: Glyphs,
}

impl Judge {
    fn colour(&self, name: &str) -> [u8; 3] {
        let colour = self.vocabulary.colours.iter().find(|colour| colour.name == name);
        colour.expect("a colour of the vocabulary").rgb
    }

    fn place(&self, name: &str) -> &Place {
        let place = self.vocabulary.places.iter().find(|place| place.name == name);
        place.expect("a place of the vocabulary")
    }

    /// The icon that the box at the asked place resembles most.
    fn nearest_icon(&self, image: &Image, case: &Case) -> &str {
        let (background, place) = (self.colour(&case.colour), self.place(&case.place));
        let cut = &self.vocabulary.cut;
        let error = |icon: usize| {
            let mut sum = 0.0;
            for (x, y) in (0..cut.height).flat_map(|y| (0..cut.width).map(move |x| (x, y))) {
                let sheet = &self.vocabulary.sheet;
                let expected = self.glyphs.composite(sheet, icon, [x, y], background);
                let at = 3 * ((place.y + y) * image.width as usize + place.x + x);
                for (got, expected) in image.rgb[at..at + 3].iter().zip(expected) {
                    sum += (f64::from(*got) - expected).powi(2);
                }
            }
            sum
        };
        let icons = &self.vocabulary.icons;
        let errors: Vec<f64> = (0..icons.len()).map(error).collect();
        let nearest = (0..icons.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b]));
        &icons[nearest.expect("there are icons")].name
    }

    /// The colour that the picture outside the box resembles most.
    fn nearest_colour(&self, image: &Image, case: &Case) -> &str {
        let (place, cut) = (self.place(&case.place), &self.vocabulary.cut);
        let width = image.width as usize;
        let outside = |i: usize| {
            let (x, y) = (i % width, i / width);
            let inside_x = (place.x..place.x + cut.width).contains(&x);
            !(inside_x && (place.y..place.y + cut.height).contains(&y))
        };
        let median = [0, 1, 2].map(|channel| {
            let pixels = (0..width * image.height as usize).filter(|&i| outside(i));
            let mut values: Vec<u8> = pixels.map(|i| image.rgb[3 * i + channel]).collect();
            values.sort_unstable();
            let half = values.len() / 2;
            (f64::from(values[half]) + f64::from(values[(values.len() - 1) / 2])) / 2.0
        });
        let distance = |colour: &Colour| {
            let parts = colour.rgb.iter().zip(median).map(|(c, m)| (f64::from(*c) - m).powi(2));
            parts.sum::<f64>()
        };
        let colours = self.vocabulary.colours.iter();
        let nearest = colours.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        &nearest.expect("there are colours").name
    }
}

#[derive(Default)]
struct Count {
    pictures: usize,
    icons_right: usize,
    backgrounds_right: usize,
}

#[test]
fn the_bundled_model_draws_what_it_is_asked_for() {
    let model = Pipeline::<Flex>::load(&toy().join("model"), &FlexDevice, &mut |_| {});
    let model = model.expect("the bundled model is whole");
    let vocabulary: Vocabulary = read("vocabulary.json");
    let judge = Judge { glyphs: Glyphs::read(&vocabulary.sheet.file), vocabulary };
    let asked: Cases = read("acceptance.json");
    assert_eq!(asked.cases.len(), 100);
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for case in &asked.cases {
        let image = draw(&model, &judge.vocabulary.image, case, asked.steps);
        let (icon, colour) = (judge.nearest_icon(&image, case), judge.nearest_colour(&image, case));
        let count = counts.entry(&case.language).or_default();
        count.pictures += 1;
        count.icons_right += usize::from(icon == case.icon);
        count.backgrounds_right += usize::from(colour == case.colour);
        if icon != case.icon || colour != case.colour {
            println!("{:?}: nearest is {icon} on {colour}", case.prompt);
        }
    }
    for (language, count) in &counts {
        let share = |right: usize| right as f64 / count.pictures as f64;
        let (icons, backgrounds) = (share(count.icons_right), share(count.backgrounds_right));
        println!(
            "{language}: {} pictures, icon right {:.1} %, background right {:.1} %",
            count.pictures,
            100.0 * icons,
            100.0 * backgrounds
        );
        assert!(icons >= ICONS_RIGHT_MIN, "{language}: icons right {icons}");
        assert!(
            backgrounds >= BACKGROUNDS_RIGHT_MIN,
            "{language}: backgrounds right {backgrounds}"
        );
    }
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), ["en", "zh"]);
}

fn draw(model: &Pipeline<Flex>, size: &Size, case: &Case, steps: u32) -> Image {
    let (width, height) = (size.width as u32, size.height as u32);
    let request = Request { steps, seed: case.seed, ..Request::new(&case.prompt, width, height) };
    let mut run = model.begin(&request).expect("a valid request");
    while run.step().expect("a finite step").is_some() {}
    run.decode().expect("a finite picture")
}
