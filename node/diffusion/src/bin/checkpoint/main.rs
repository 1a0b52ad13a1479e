//! Works on model directories: writes one with random values, plans its memory, loads it.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use atelier_diffusion::config::PipelineConfig;
use atelier_diffusion::layout::Layout;
use atelier_diffusion::plan::gigabytes;
use atelier_diffusion::synthetic::{self, Recipe, Scale, Setting};
use atelier_diffusion::{
    LoadOptions, LoadProgress, MemoryPlan, Pipeline, Placement, Precision, Watch,
};
use burn_flex::{Flex, FlexDevice};
use clap::{Args, Parser, Subcommand};

/// Works on model directories in the layout of Z-Image.
#[derive(Parser)]
#[command(name = "checkpoint", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a model directory of exactly the published layout, with random values.
    Generate(Generate),
    /// Tell what a model takes of a card's memory, without loading it.
    Plan(Plan),
    /// Load a model on the CPU; tell rate, peak memory and the SHA-256 of each file of weights.
    Load(Load),
}

#[derive(Args)]
struct Generate {
    /// Where; empty or not there.
    directory: PathBuf,
    /// full (32.8 GB) or medium (width 384, 8 layers).
    #[arg(long, default_value = "full")]
    scale: Scale,
    /// Change a configuration, for example --set transformer.n_layers=4; may be repeated.
    #[arg(long, value_name = "COMPONENT.KEY=VALUE")]
    set: Vec<Setting>,
    /// How the transformer is stored: f32, as Turbo, or bf16, as the base model.
    #[arg(long, default_value = "f32")]
    transformer: Precision,
    /// Chooses the values.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct Plan {
    /// A model directory; only its configurations are read.
    directory: PathBuf,
    /// A card's memory in GB, 10⁹; without it cards of 16, 24, 80 and 141 GB.
    #[arg(long, value_name = "GB")]
    memory: Option<f64>,
    /// Where the text encoder lives, device or host; left out, on the device where it fits.
    #[arg(long, value_name = "PLACE")]
    text_encoder: Option<Placement>,
    /// In what the card computes: bf16 or f32.
    #[arg(long, default_value = "bf16")]
    precision: Precision,
}

#[derive(Args)]
struct Load {
    /// A model directory.
    directory: PathBuf,
    /// In what the components compute: f32, as on CPUs, or bf16, as on cards.
    #[arg(long, default_value = "f32")]
    precision: Precision,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Generate(arguments) => generate(&arguments),
        Command::Plan(arguments) => plan(&arguments),
        Command::Load(arguments) => load(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(arguments: &Generate) -> Result<bool> {
    let begun = Instant::now();
    let mut settings = arguments.scale.settings();
    settings.extend(arguments.set.iter().cloned());
    let recipe = Recipe { settings, transformer: arguments.transformer, seed: arguments.seed };
    let mut line = Line::default();
    let written = synthetic::write(&arguments.directory, &recipe, &mut |bytes, total| {
        line.show(&format!("{} of {}", gigabytes(bytes), gigabytes(total)), bytes == total);
    })?;
    println!(
        "{} parameters, {} in {:.1?}: {}",
        written.parameters,
        gigabytes(written.bytes),
        begun.elapsed(),
        arguments.directory.display()
    );
    Ok(true)
}

fn plan(arguments: &Plan) -> Result<bool> {
    let config = PipelineConfig::read(&arguments.directory)?;
    let layout = Layout::of(&config);
    let cards = arguments.memory.map_or_else(|| vec![16.0, 24.0, 80.0, 141.0], |gb| vec![gb]);
    let mut all_fit = true;
    for gb in cards {
        println!("card of {gb} GB");
        let available = (gb * 1e9) as u64;
        let (precision, placement) = (arguments.precision, arguments.text_encoder);
        match MemoryPlan::fit(&config, &layout, precision, placement, available) {
            Ok(plan) => println!(
                "{plan}\nleft for larger pictures {}\n",
                gigabytes(plan.left_for_work(available) - plan.work)
            ),
            Err(refused) => {
                all_fit = false;
                println!("does not fit: {refused}\n");
            }
        }
    }
    Ok(all_fit || arguments.memory.is_none())
}

fn load(arguments: &Load) -> Result<bool> {
    let before = peak_memory()?;
    let begun = Instant::now();
    let mut line = Line::default();
    let mut progress = |now: LoadProgress| {
        let text = format!(
            "{} {} of {}, {}/s",
            now.component,
            gigabytes(now.bytes),
            gigabytes(now.bytes_total),
            gigabytes(now.bytes_per_second() as u64)
        );
        line.show(&text, now.bytes == now.bytes_total && now.tensors == now.tensors_total);
    };
    let mut watch = Watch { progress: &mut progress, bytes: None };
    let options = LoadOptions::new(arguments.precision);
    let directory: &Path = &arguments.directory;
    let model = Pipeline::<Flex>::load_with(directory, &FlexDevice, options, &mut watch)
        .with_context(|| format!("cannot load {}", directory.display()))?;
    let elapsed = begun.elapsed();
    for file in &model.files {
        let digest: String = file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{digest}  {}", file.path.display());
    }
    let bytes: u64 = model.files.iter().map(|file| file.bytes).sum();
    let resident = model.plan.text_encoder + model.plan.transformer + model.plan.vae;
    let peak = peak_memory()?;
    println!(
        "read {} in {elapsed:.1?}, {}/s",
        gigabytes(bytes),
        gigabytes((bytes as f64 / elapsed.as_secs_f64()) as u64)
    );
    println!("model in memory {}", gigabytes(resident));
    println!("peak of the process {}, {} before loading", gigabytes(peak), gigabytes(before));
    println!("above the model {}", gigabytes(peak.saturating_sub(resident)));
    Ok(true)
}

/// The most memory that this process has held so far, mapped files included.
fn peak_memory() -> Result<u64> {
    let text =
        std::fs::read_to_string("/proc/self/status").context("cannot read the own memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.context("the system does not tell the own memory")? * 1024)
}

/// A line of progress that is written over, twice a second at most; only its last form where nobody
/// watches.
#[derive(Default)]
struct Line {
    shown: Option<Instant>,
}

impl Line {
    fn show(&mut self, text: &str, is_last: bool) {
        let waited = self.shown.is_none_or(|shown| shown.elapsed().as_millis() > 500);
        let due = waited && std::io::stderr().is_terminal();
        if due || is_last {
            self.shown = Some(Instant::now());
            eprint!("\r{text}\x1b[K{}", if is_last { "\n" } else { "" });
            // Only a line of progress: who reads it from a pipe that is closed misses nothing.
            let _ = std::io::stderr().flush();
        }
    }
}
