//! Compares every component with what the reference computed.
//!
//! `parity GOLDEN OUT`: feeds the inputs of a golden set (its `manifest.json` says what each tensor
//! is), prints for each tensor the largest error beside its tolerance, and writes what was computed
//! to OUT under the same file and tensor names, for `compare.py GOLDEN OUT --strict`.
//!
//! Exit status: 0 all within tolerance, 1 one is over, 2 the set could not be run, 3 something was
//! not done.

mod components;
mod golden;
mod runs;
mod torch_rng;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use atelier_diffusion::kernels::Kernels;
use atelier_diffusion::weights::Precision;
use atelier_diffusion::{LoadOptions, Pipeline, Watch};
use burn_flex::{Flex, FlexDevice};

use golden::{Report, Set};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match words[..] {
        [golden, out] => check::<Flex>(Path::new(golden), Path::new(out), &FlexDevice),
        #[cfg(feature = "cuda")]
        [golden, out, "cuda"] => {
            type Gpu = burn_cuda::Cuda<f32, i32>;
            check::<Gpu>(Path::new(golden), Path::new(out), &burn_cuda::CudaDevice::default())
        }
        _ => {
            eprintln!(
                "usage: parity GOLDEN OUT, and a third word `cuda` in a build with that feature"
            );
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(report) => report.conclude(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs every file of the set that this program knows.
fn check<B: Kernels>(golden: &Path, out: &Path, device: &B::Device) -> Result<Report> {
    let set = Set::open(golden)?;
    let mut report = Report::new(out)?;
    let load = |precision| {
        let mut watch = Watch { progress: &mut |_| {}, bytes: None };
        let options = LoadOptions::new(precision);
        let directory = golden.join("pipeline");
        Pipeline::<B>::load_with(&directory, device, options, &mut watch)
            .with_context(|| format!("cannot load {}", directory.display()))
    };
    let pipeline = load(Precision::F32)?;
    for name in set.files() {
        let mut file = set.file(&name)?;
        match name.as_str() {
            "text.safetensors" => components::text(&pipeline, &mut file)?,
            "tokenizer_cases.json" => {
                components::tokenizer_cases(&pipeline, &set, &mut report)?;
                continue;
            }
            "scheduler.safetensors" => components::scheduler(&pipeline, &mut file)?,
            "transformer.safetensors" => components::transformer(&pipeline, &mut file)?,
            "vae.safetensors" => components::vae(&pipeline, &mut file)?,
            "norms.safetensors" => components::norms(&pipeline, &mut file)?,
            "txt2img.safetensors" | "txt2img_batch.safetensors" => {
                runs::txt2img(&pipeline, &mut file)?;
            }
            "cfg.safetensors" => runs::cfg(&pipeline, &mut file)?,
            "img2img.safetensors" => runs::img2img(&pipeline, &set, &mut file)?,
            "lora.safetensors" => runs::lora::<B>(&set, device, &mut file)?,
            "bf16.safetensors" => runs::bf16(&load(Precision::Bf16)?, &set, &mut file)?,
            "rng.safetensors" => torch_rng::check(&mut file)?,
            name if name.starts_with("images/") || name.starts_with("lora/") => continue,
            other => {
                report.not_done(other);
                continue;
            }
        }
        report.take(file)?;
    }
    if report.compared() == 0 {
        bail!("{} names no file that can be compared", golden.display());
    }
    Ok(report)
}
