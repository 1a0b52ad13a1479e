//! One child process with its three pipes.
//!
//! Owns starting, reading, writing and ending it. Frames are read by a task of their own, because a
//! frame that is read halfway cannot be read again. Dropping the process kills the child.

use super::child::reply_of;
use super::frame::{FrameError, receive_frame, send_frame};
use atelier_proto::engine::v1::{EngineReply, EngineRequest, engine_reply::Reply};
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames that were read ahead. Filled by the child; at the brim the pipe fills and the child
/// waits.
const FRAMES_READ_AHEAD_MAX: usize = 2;
/// Bytes of one line of standard error; longer lines are cut into several.
const LINE_BYTES_MAX: u64 = 4096;
/// After the child's end its last words are waited for this long: a grandchild may hold the pipe.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);

/// A killed child is waited for this long: one that hangs in its driver cannot be helped.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Why a child is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    what: String,
    last_words: Option<String>,
}

impl Crash {
    pub(super) fn new(what: String) -> Crash {
        Crash { what, last_words: None }
    }

    pub(super) fn unexpected(reply: &Reply) -> Crash {
        // Names the variant alone: pictures do not belong into logs.
        let name = match reply {
            Reply::Loading(_) => "Loading",
            Reply::Ready(_) => "Ready",
            Reply::Step(_) => "Step",
            Reply::Picture(_) => "Picture",
            Reply::Done(_) => "Done",
            Reply::Failed(_) => "Failed",
            Reply::Stopped(_) => "Stopped",
            Reply::Checkpoint(_) => "Checkpoint",
        };
        Crash::new(format!("the engine sent {name} out of turn"))
    }

    pub(super) fn with(self, last_words: Option<String>) -> Crash {
        Crash { last_words, ..self }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.last_words {
            Some(words) => write!(f, "; its last words: {words}"),
            None => Ok(()),
        }
    }
}

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    requests: Option<ChildStdin>,
    frames: mpsc::Receiver<Result<EngineReply, FrameError>>,
    frame_reader: JoinHandle<()>,
    line_reader: JoinHandle<()>,
    last_line: Arc<Mutex<Option<String>>>,
}

impl Process {
    pub(super) fn start(mut command: Command) -> Result<Process, Crash> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            let program = command.as_std().get_program().to_string_lossy();
            Crash::new(format!("cannot start {program}: {error}"))
        })?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().expect("standard output is piped");
        let errors = child.stderr.take().expect("standard error is piped");
        let (frame_writer, frames) = mpsc::channel(FRAMES_READ_AHEAD_MAX);
        let last_line = Arc::new(Mutex::new(None));
        let frame_reader = tokio::spawn(read_frames(answers, frame_writer));
        let line_reader = tokio::spawn(read_lines(errors, last_line.clone()));
        Ok(Process { child, requests, frames, frame_reader, line_reader, last_line })
    }

    /// Writes one request.
    ///
    /// # Cancel safety
    /// None; the child is of no use after a dropped future.
    pub(super) async fn send(
        &mut self,
        request: EngineRequest,
        within: Duration,
    ) -> Result<(), Crash> {
        let pipe = self.requests.as_mut().expect("open until the end");
        match tokio::time::timeout(within, send_frame(pipe, &request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Crash::new(format!("request was not taken: {error}"))),
            Err(_) => Err(Crash::new(format!("request was not taken within {within:?}"))),
        }
    }

    /// Returns the next reply.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Reply, Crash> {
        match self.frames.recv().await {
            Some(Ok(frame)) => reply_of(frame),
            Some(Err(error)) => Err(Crash::new(error.to_string())),
            None => Err(Crash::new("the engine's process ended".to_owned())),
        }
    }

    /// Returns the next reply, unless the child is silent for too long.
    ///
    /// # Cancel safety
    /// Safe, but the time begins anew.
    pub(super) async fn next_within(&mut self, silence: Duration) -> Result<Reply, Crash> {
        match tokio::time::timeout(silence, self.next()).await {
            Ok(reply) => reply,
            Err(_) => Err(Crash::new(format!("the engine was silent for {silence:?}"))),
        }
    }

    /// Closes its pipe, which ends a child that lives; kills it after the grace.
    pub(super) async fn end(&mut self, grace: Duration) -> Option<String> {
        self.requests = None;
        // Its last frames are not read: a full pipe must not keep it from ending.
        self.frames.close();
        let _ = tokio::time::timeout(grace, self.child.wait()).await;
        self.kill().await
    }

    /// Kills the child if it still lives, and returns how it ended and its last words.
    pub(super) async fn kill(&mut self) -> Option<String> {
        // Fails for a child that has ended, and that is what is wanted.
        let _ = self.child.start_kill();
        let status = tokio::time::timeout(KILL_WAIT, self.child.wait()).await;
        let _ = tokio::time::timeout(LAST_WORDS_WAIT, &mut self.line_reader).await;
        let line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (line, status) {
            (Some(line), Ok(Ok(status))) => Some(format!("{line} ({status})")),
            (None, Ok(Ok(status))) => Some(format!("none ({status})")),
            (line, Ok(Err(_)) | Err(_)) => line,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.frame_reader.abort();
        self.line_reader.abort();
    }
}

async fn read_frames(
    mut answers: ChildStdout,
    frames: mpsc::Sender<Result<EngineReply, FrameError>>,
) {
    loop {
        let frame = match receive_frame(&mut answers).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = frame.is_err();
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

async fn read_lines(errors: ChildStderr, last_line: Arc<Mutex<Option<String>>>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut errors).take(LINE_BYTES_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            tracing::info!(target: "atelier::engine", "{text}");
            let mut last_line = last_line.lock().unwrap_or_else(PoisonError::into_inner);
            *last_line = Some(text.to_owned());
        }
    }
}
