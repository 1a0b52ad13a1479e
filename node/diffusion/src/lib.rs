//! Z-Image in burn: prompt and seed to picture; has no word of jobs or peers.
//!
//! ```text
//!  model directory (diffusers layout)
//!   ├ *.json ─────────▶ config
//!   ├ tokenizer/ ─────▶ tokenizer ─ ids ─▶ text_encoder ─ features ─▶ transformer
//!   └ */*.safetensors ▶ weights (+ lora) ─▶ layers ─▶ each component       │ caption, cached
//!                                                                          ▼
//!  seed ─▶ noise ─ latents ─▶ flow_match: an Euler step ◀─ velocity ─ transformer
//!                             … 8 times … ─▶ autoencoder ─▶ image ─▶ PNG
//!
//!  loading   judges all of it, plans memory, then reads each file once
//!  pipeline  holds the components and runs them step by step
//!  backend   chooses CPU (burn-flex) or CUDA (burn-cuda) when the program runs
//!  kernels   what a backend does in its own way      tap  a window for the parity check
//! ```
//!
//! Everything but [`backend`] is generic over the burn backend. Names in [`transformer`],
//! [`text_encoder`] and [`autoencoder`] are the reference's. Whether the numbers are right is
//! proved by `tests/parity.rs` against tensors that the reference itself computed.
//!
//! ```no_run
//! use atelier_diffusion::{AnyPipeline, BackendChoice, Request};
//!
//! let directory = "node/diffusion/toy/model".as_ref();
//! let model = AnyPipeline::load(BackendChoice::Auto, directory, &mut |_| {})?;
//! let request = Request { seed: 7, ..Request::new("a cat on a blue background", 128, 128) };
//! let mut run = model.begin(&request)?;
//! while let Some(report) = run.step()? {
//!     println!("step {} of {}", report.step, report.steps);
//! }
//! std::fs::write("cat.png", run.decode()?.to_png())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod autoencoder;
pub mod backend;
pub mod config;
pub mod flow_match;
pub mod image;
pub mod kernels;
pub mod layers;
pub mod layout;
pub mod loading;
pub mod lora;
pub mod noise;
pub mod pipeline;
pub mod plan;
pub mod preview;
pub mod request;
pub mod run;
pub mod synthetic;
pub mod tap;
pub mod text_encoder;
mod tiles;
pub mod tokenizer;
pub mod transformer;
pub mod weights;

pub use backend::{AnyPipeline, AnyRun, BackendChoice, LoadSettings};
pub use image::Image;
pub use loading::{LoadError, LoadOptions};
pub use pipeline::Pipeline;
pub use plan::{MemoryPlan, Placement};
pub use request::{GuidanceRequest, Mask, Request, RequestError, Source};
pub use run::{Run, StageTimes, StepError, StepReport};
pub use weights::{LoadProgress, LoadedFile, Precision, Watch};
