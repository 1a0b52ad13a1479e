//! `atelier cluster recover`: hands over to the daemon, which knows what lies in a data directory.

use std::path::PathBuf;
use std::process::Command;

use crate::cli::Context;
use crate::cli::args::RecoverArgs;
use crate::cli::failure::{Exit, Failure};

pub(super) fn run(context: &Context, args: &RecoverArgs) -> Result<Exit, Failure> {
    let daemon = match &args.atelierd {
        Some(path) => path.clone(),
        None => beside()?,
    };
    let mut command = Command::new(&daemon);
    command.arg("recover").arg("--config").arg(&args.config).args(["--reason", &args.reason]);
    for (told, flag) in [(args.majority_is_lost, "--majority-is-lost"), (args.dry_run, "--dry-run")]
    {
        command.args(told.then_some(flag));
    }
    if context.output.is_json() {
        command.arg("--json");
    }
    let ended = command.status().map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot start {}: {error}", daemon.display()))
            .hint("name the daemon with --atelierd PATH")
    })?;
    // The daemon has told what there is to tell.
    Ok(match ended.code() {
        Some(0) => Exit::Ok,
        Some(2) => Exit::Usage,
        Some(4) => Exit::Conflict,
        _ => Exit::Failed,
    })
}

fn beside() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name("atelierd"))
}
