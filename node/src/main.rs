//! The daemon `atelierd`: a peer of the cluster, or the engine that a peer starts.
//!
//! Owns the process: arguments, log, signals, exit codes. It must not know what a peer does.

#![forbid(unsafe_code)]

mod cli;
mod engine;
mod logging;
mod model;
mod recover;

use anyhow::{Context, Result};
use atelier_diffusion::LoadSettings;
use atelier_peer::config::{Config, Sources};
use atelier_peer::peer::{RunError, Signals, run};
use clap::Parser;
use cli::{Cli, Command, Engine, Start};
use std::io::stderr;
use std::process::ExitCode;

/// Gives memory back that a peer no longer needs; how fast is set where it is built, in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const _: () = assert!(!atelier_peer::MUTANTS, "the daemon is never built with planted bugs");

/// A configuration or an argument is wrong.
const USAGE: u8 = 2;
/// A second signal ended the peer while it was leaving.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Start(arguments) => start(&arguments),
        Command::Recover(arguments) => recover::run(&arguments),
        Command::Engine(arguments) => serve_engine(&arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(arguments: &Start) -> Result<ExitCode> {
    let sources = arguments.sources()?;
    if arguments.print_config {
        print!("{}", Config::read(&sources).0.to_commented_toml());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(config) = configured(&sources) else { return Ok(ExitCode::from(USAGE)) };
    let log = logging::start(&config)?;
    let engine = config.engine.enabled.then(|| cli::engine_command(&config)).transpose()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        // Before anything that takes long: a signal must never find the default handler.
        let signals = Signals::install().context("cannot take over signals")?;
        match run(config, signals, engine).await {
            Err(RunError::Impatient) => Ok(ExitCode::from(INTERRUPTED)),
            ended => Ok(ended.map(|()| ExitCode::SUCCESS)?),
        }
    });
    // Nothing is waited for: what must be on the disk is there.
    runtime.shutdown_background();
    drop(log);
    ended
}

/// The configuration; none where it has faults, which are told.
fn configured(sources: &Sources) -> Option<Config> {
    match Config::load(sources) {
        Ok(config) => Some(config),
        Err(faults) => {
            eprintln!("error: {faults}\nhint: `atelierd start --print-config` explains every key");
            None
        }
    }
}

fn serve_engine(arguments: &Engine) -> Result<ExitCode> {
    // The peer puts these lines into its own log, with its own times.
    let log = tracing_subscriber::fmt().with_env_filter(logging::filter(&arguments.log)?);
    log.with_writer(stderr).without_time().with_ansi(false).init();
    let (backend, text_encoder) = (arguments.backend, arguments.text_encoder);
    let settings = LoadSettings { backend, text_encoder, ..LoadSettings::default() };
    engine::run(&arguments.model, &settings)?;
    Ok(ExitCode::SUCCESS)
}
