//! Where the daemon's words go: standard error for people, standard output and files for programs.

use std::io::{IsTerminal, stderr, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use atelier_peer::config::{Config, LogFormat};
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate, compression::Compression};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// The name of the newest file; older ones have a number behind it.
const FILE: &str = "atelierd.log";
/// Lines that wait for a disk. At the brim further ones are dropped: a peer never waits for its log.
const LINES_WAITING_MAX: usize = 16 * 1024;

type Sink = Box<dyn Layer<Registry> + Send + Sync>;

/// Keeps files written until it is dropped.
pub(crate) struct Log {
    _file: Option<WorkerGuard>,
}

/// Begins to log as a configuration says.
///
/// # Errors
/// For a filter that is none, and a directory that cannot be written.
pub(crate) fn start(config: &Config) -> Result<Log> {
    let mut sinks: Vec<Sink> = vec![match config.log_format {
        LogFormat::Text => {
            fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).boxed()
        }
        LogFormat::Json => json(stdout),
    }];
    let mut guard = None;
    if !config.log_directory.as_os_str().is_empty() {
        let (writer, worker) = files(config)?;
        sinks.push(json(writer));
        guard = Some(worker);
    }
    tracing_subscriber::registry().with(sinks).with(filter(&config.log)?).init();
    Ok(Log { _file: guard })
}

/// One object a line: timestamp, level, target, the words, and what goes with them.
fn json<W>(writer: W) -> Sink
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(writer).boxed()
}

fn files(config: &Config) -> Result<(NonBlocking, WorkerGuard)> {
    let directory: &Path = &config.log_directory;
    let cannot = || format!("cannot log to {}; make it writable", directory.display());
    std::fs::create_dir_all(directory).with_context(cannot)?;
    let file = directory.join(FILE);
    // Opened here as well: the rotating file itself would panic.
    std::fs::OpenOptions::new().create(true).append(true).open(&file).with_context(cannot)?;
    let kept = AppendCount::new(config.log_files.saturating_sub(1).max(1));
    let limit = ContentLimit::BytesSurpassed(config.log_file_mib * 1024 * 1024);
    let rotating = FileRotate::new(file, kept, limit, Compression::None, None);
    let builder = tracing_appender::non_blocking::NonBlockingBuilder::default();
    Ok(builder.buffered_lines_limit(LINES_WAITING_MAX).lossy(true).finish(rotating))
}

/// What openraft says of each failed heartbeat, each call to a dead peer and each call to a stopped node, ten
/// times a second and more, is left out.
const QUIET: &str = "openraft=warn,openraft::core::heartbeat=off,openraft::replication=off,\
                     openraft::engine::handler::replication_handler=off,openraft::raft::raft_inner=off";

/// A later directive outranks an earlier one, so whoever wants to hear more of openraft can.
pub(crate) fn filter(text: &str) -> Result<EnvFilter> {
    let all = format!("{QUIET},{text}");
    EnvFilter::try_new(all).with_context(|| format!("log filter `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_are_bounded_by_bytes_and_by_count() {
        let directory = std::env::temp_dir().join(format!("atelier-log-{}", std::process::id()));
        let config = Config {
            log_directory: directory.clone(),
            log_file_mib: 1,
            log_files: 3,
            ..Config::default()
        };
        let (mut writer, guard) = files(&config).expect("a directory");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..6 {
            // Fewer than wait at most, so that none is dropped.
            for _ in 0..1024 {
                writer.write_all(&line).expect("a queue");
            }
        }
        drop(guard);
        let sizes: Vec<u64> = std::fs::read_dir(&directory)
            .expect("it is there")
            .map(|entry| entry.expect("a file").metadata().expect("its size").len())
            .collect();
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= (1 << 20) + 1024), "{sizes:?}");
    }
}
