//! Draws one picture from a model directory and tells how long each stage took.
//!
//! `cargo run --release -p atelier-diffusion --example draw -- --model DIR --prompt "a cat" --seed
//! 7 -o cat.png`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use atelier_diffusion::{AnyPipeline, BackendChoice, Request};
use clap::Parser;

/// Draws one picture from a model directory.
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
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    backend: BackendChoice,
    /// Draws the picture this many times and prints the median of each stage.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Where the PNG goes.
    #[arg(short, long)]
    output: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let model = AnyPipeline::load(arguments.backend, &arguments.model, &mut |_| {})?;
    println!("device  {}", model.device_name());
    println!("class   {}", model.class());
    println!("load    {:>9.1?}", begun.elapsed());
    let request = Request {
        prompt: arguments.prompt,
        width: arguments.width,
        height: arguments.height,
        steps: arguments.steps,
        seed: arguments.seed,
        image_index: 0,
    };
    let mut stages: [Vec<Duration>; 4] = Default::default();
    for _ in 0..arguments.repeat.max(1) {
        let begun = Instant::now();
        let mut run = model.begin(&request)?;
        while run.step()?.is_some() {}
        let png = run.decode()?.to_png();
        let whole = begun.elapsed();
        std::fs::write(&arguments.output, png)?;
        let times = run.times();
        let measured = [times.encode, times.denoise, times.decode, whole];
        stages.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
    }
    for (name, mut times) in ["encode", "denoise", "decode", "whole"].into_iter().zip(stages) {
        times.sort();
        println!("{name:<7} {:>9.1?}", times[times.len() / 2]);
    }
    Ok(())
}
