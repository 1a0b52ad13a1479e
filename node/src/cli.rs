//! What the command line of `atelierd` says, turned into settings. No flag has a default here:
//! defaults, ranges and explanations are the configuration's.

use anyhow::{Context, Result};
use atelier_diffusion::{BackendChoice, Placement};
use atelier_peer::config::{Config, Setting, Sources};
use atelier_peer::engine_link::child::ChildCommand;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};

/// A peer of an Atelier cluster, which draws pictures from prompts.
#[derive(Debug, Parser)]
#[command(name = "atelierd", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a peer until it is told to leave.
    Start(Box<Start>),
    /// Make a survivor a cluster of its own, after a majority of the voters was lost for good. Its
    /// process must not run.
    Recover(Recover),
    /// Own a device and draw for the peer that started this process, over standard input and
    /// output.
    Engine(Engine),
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// TOML file of settings; the environment (ATELIER_…) outranks it, flags outrank both.
    #[arg(long, value_name = "FILE", env = "ATELIER_CONFIG")]
    config: Option<PathBuf>,
    /// This peer's id (node).
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Name of the cluster (cluster).
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Directory of log, state and results (data).
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The initial members, 1=http://host:port,2=… (peers).
    #[arg(long, value_name = "LIST")]
    peers: Option<String>,
    /// Join a cluster instead of forming one (join): ask this peer of it to be let in (join_through),
    /// or without a URL wait to be added.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    join: Option<String>,
    /// What lets this peer in (cluster_token); better in the environment, ATELIER_CLUSTER_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Ask for a vote as soon as this peer has caught up (promote).
    #[arg(long)]
    promote: bool,
    /// Where HTTP listens (listen.http).
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Where gRPC listens (listen.grpc).
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<String>,
    /// What clients and peers dial, http://host:port (listen.advertise).
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Directory of the model (engine.model).
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// What draws: auto, cpu or cuda (engine.backend).
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Vote and serve, without a model (engine.enabled = false).
    #[arg(long)]
    no_engine: bool,
    /// Filter of the log, for example info or debug (log).
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any other setting, for example --set jobs.lease_ms=5000; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the effective settings as a commented file, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The survivor's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A majority of the voters is lost, for good: none of them will ever be started again.
    #[arg(long)]
    pub(crate) majority_is_lost: bool,
    /// Show what there is and what may be lost, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why, for whoever reads the trail of the cluster later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Engine {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// What draws: auto, cpu or cuda.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: BackendChoice,
    /// Where the text encoder lives, device or host; left out, on the device where it fits.
    #[arg(long, value_name = "PLACE")]
    pub(crate) text_encoder: Option<Placement>,
    /// Filter of the log.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}

impl Start {
    /// Gathers file, environment and flags.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn sources(&self) -> Result<Sources> {
        sources(self.config.as_deref(), self.settings())
    }

    fn settings(&self) -> Vec<Setting> {
        let join = self.join.as_ref().map(|_| "true".to_owned());
        let join_through = self.join.clone().filter(|url| !url.is_empty());
        let promote = self.promote.then(|| "true".to_owned());
        let no_engine = self.no_engine.then(|| "false".to_owned());
        let flags = [
            ("--node", "node", &self.node),
            ("--cluster", "cluster", &self.cluster),
            ("--data", "data", &self.data),
            ("--peers", "peers", &self.peers),
            ("--join", "join", &join),
            ("--join", "join_through", &join_through),
            ("--token", "cluster_token", &self.token),
            ("--promote", "promote", &promote),
            ("--http", "listen.http", &self.http),
            ("--grpc", "listen.grpc", &self.grpc),
            ("--advertise", "listen.advertise", &self.advertise),
            ("--model", "engine.model", &self.model),
            ("--backend", "engine.backend", &self.backend),
            ("--no-engine", "engine.enabled", &no_engine),
            ("--log", "log", &self.log),
        ];
        let setting = |(flag, key, value): (&str, &str, &Option<String>)| {
            let (flag, key) = (flag.to_owned(), key.to_owned());
            value.clone().map(|value| Setting { flag, key, value })
        };
        let set = self.set.iter().map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let flag = format!("--set {text}");
            Setting { flag, key: key.to_owned(), value: value.to_owned() }
        });
        flags.into_iter().filter_map(setting).chain(set).collect()
    }
}

impl Recover {
    /// Gathers file and environment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn sources(&self) -> Result<Sources> {
        sources(Some(&self.config), Vec::new())
    }
}

fn sources(file: Option<&Path>, flags: Vec<Setting>) -> Result<Sources> {
    let file = file.map(|path| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Ok::<_, anyhow::Error>((path.display().to_string(), text))
    });
    // A variable that is not text cannot be one of ours.
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    let environment = std::env::vars_os().filter_map(text).collect();
    Ok(Sources { file: file.transpose()?, environment, flags })
}

/// The command that a peer starts its engine with: this very program.
///
/// # Errors
/// When the system does not tell which program this is.
pub(crate) fn engine_command(config: &Config) -> Result<ChildCommand> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let (engine, log) = (config.engine.clone(), config.log.clone());
    Ok(Box::new(move || {
        let mut command = tokio::process::Command::new(&program);
        command.arg("engine").arg("--model").arg(&engine.model);
        command.args(["--backend", engine.backend.as_str(), "--log", &log]);
        // Ctrl-C in a terminal is for the peer: it gives the jobs back, then ends its engine.
        command.process_group(0);
        command
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn settings(arguments: &[&str]) -> Vec<(String, String)> {
        let all = ["atelierd", "start"].iter().chain(arguments);
        let Command::Start(start) = Cli::parse_from(all).command else {
            panic!("it was told to start")
        };
        start.settings().into_iter().map(|setting| (setting.key, setting.value)).collect()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings_and_absent_ones_none() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(settings(&[]), []);
        let told =
            settings(&["--node", "2", "--no-engine", "--join", "--set", "jobs.lease_ms=5000"]);
        let expected = [
            pair("node", "2"),
            pair("join", "true"),
            pair("engine.enabled", "false"),
            pair("jobs.lease_ms", "5000"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn every_flag_names_a_setting_that_exists() {
        let every = [
            "--node",
            "1",
            "--cluster",
            "c",
            "--data",
            "d",
            "--peers",
            "1=http://127.0.0.1:7861",
            "--http",
            "127.0.0.1:1",
            "--grpc",
            "127.0.0.1:7861",
            "--advertise",
            "http://127.0.0.1:7861",
            "--model",
            "m",
            "--backend",
            "cpu",
            "--log",
            "info",
        ];
        let all = ["atelierd", "start"].iter().chain(&every);
        let Command::Start(start) = Cli::parse_from(all).command else {
            panic!("it was told to start")
        };
        let sources = Sources { flags: start.settings(), ..Sources::default() };
        Config::load(&sources).expect("every flag is a key");
    }
}
