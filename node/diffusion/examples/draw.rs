//! Draws pictures from a model directory and tells how long each stage took.
//!
//! `cargo run --release -p atelier-diffusion --example draw -- --model DIR --prompt "a cat" --seed
//! 7 -o cat.png`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use atelier_diffusion::{
    AnyPipeline, BackendChoice, GuidanceRequest, Image, LoadSettings, Mask, Placement, Request,
    Source, Watch,
};
use clap::Parser;

/// Draws pictures from a model directory.
#[derive(Parser)]
struct Arguments {
    /// A model directory in the diffusers layout.
    #[arg(long)]
    model: PathBuf,
    /// What the picture shows.
    #[arg(long)]
    prompt: String,
    /// Pixels in a row.
    #[arg(long, default_value_t = 128)]
    width: u32,
    /// Rows.
    #[arg(long, default_value_t = 128)]
    height: u32,
    /// Passes through the transformer.
    #[arg(long, default_value_t = 8)]
    steps: u32,
    /// The noise is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pictures; each but the first has its number in its file's name.
    #[arg(long, default_value_t = 1)]
    images: u32,
    /// Guidance, for the base model: 3 to 5; 0 is none.
    #[arg(long, default_value_t = 0.0)]
    guidance: f32,
    /// What the picture is led away from.
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// A PNG of the picture's size to begin from.
    #[arg(long)]
    image: Option<PathBuf>,
    /// How much of it is drawn anew.
    #[arg(long, default_value_t = 0.6)]
    strength: f64,
    /// A black and white PNG of the same size: white is drawn anew.
    #[arg(long, requires = "image")]
    mask: Option<PathBuf>,
    /// A LoRA.
    #[arg(long)]
    lora: Option<PathBuf>,
    /// How strongly the LoRA changes the model.
    #[arg(long, default_value_t = 1.0)]
    lora_strength: f32,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    backend: BackendChoice,
    /// Where the text encoder lives, device or host; left out, on the device where it fits.
    #[arg(long)]
    text_encoder: Option<Placement>,
    /// Draws everything this many times and prints the median of each stage.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Where the PNG goes.
    #[arg(short, long)]
    output: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let settings = LoadSettings {
        backend: arguments.backend,
        text_encoder: arguments.text_encoder,
        lora: arguments.lora.clone().map(|path| (path, arguments.lora_strength)),
        memory_bytes: None,
    };
    let mut watch = Watch { progress: &mut |_| {}, bytes: None };
    let model = AnyPipeline::load_with(&settings, &arguments.model, &mut watch)?;
    println!("device  {}", model.device_name());
    println!("class   {}", model.class());
    println!("load    {:>9.1?}", begun.elapsed());
    println!("{}", model.plan());
    let request = request(&arguments)?;
    let mut stages: [Vec<Duration>; 4] = Default::default();
    for _ in 0..arguments.repeat.max(1) {
        for image_index in 0..arguments.images {
            let begun = Instant::now();
            let mut run = model.begin(&Request { image_index, ..request.clone() })?;
            while run.step()?.is_some() {}
            let png = run.decode()?.to_png();
            let whole = begun.elapsed();
            std::fs::write(numbered(&arguments.output, image_index), png)?;
            let times = run.times();
            let measured = [times.encode, times.denoise, times.decode, whole];
            stages.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
        }
    }
    for (name, mut times) in ["encode", "denoise", "decode", "whole"].into_iter().zip(stages) {
        times.sort();
        if let Some(median) = times.get(times.len() / 2) {
            println!("{name:<7} {median:>9.1?}");
        }
    }
    Ok(())
}

fn request(arguments: &Arguments) -> anyhow::Result<Request> {
    let guidance = (arguments.guidance != 0.0).then(|| GuidanceRequest {
        scale: arguments.guidance,
        negative_prompt: arguments.negative_prompt.clone(),
        truncation: 1.0,
        normalization: 0.0,
    });
    let source = match &arguments.image {
        None => None,
        Some(path) => Some(Source {
            image: picture(path)?,
            strength: arguments.strength,
            mask: arguments
                .mask
                .as_deref()
                .map(picture)
                .transpose()?
                .as_ref()
                .map(Mask::from_image),
        }),
    };
    Ok(Request {
        steps: arguments.steps,
        seed: arguments.seed,
        guidance,
        source,
        ..Request::new(&arguments.prompt, arguments.width, arguments.height)
    })
}

fn picture(path: &Path) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Image::from_png(&bytes).with_context(|| format!("{}", path.display()))
}

/// `cat.png`, `cat-1.png`, `cat-2.png` …
fn numbered(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_path_buf();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{index}.png"))
}
