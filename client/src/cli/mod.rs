//! Runs one command and turns what came of it into text and an exit code.

mod address;
mod args;
mod bench;
mod change;
mod cluster;
mod config;
mod contexts;
mod demo;
mod doctor;
mod drain;
mod explain;
mod failure;
mod files;
mod generate;
mod job;
mod json;
mod letters;
mod member;
mod output;
mod pause;
mod progress;
mod queue;
mod quorum;
mod reader;
mod status;
mod submit;
mod timeline;
mod top;
mod wait;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atelier_client::{Client, Options};
use tokio::signal::unix::{SignalKind, signal};

use args::{Args, Command, Connection};
use failure::{Exit, Failure};
use output::Output;

/// How long a question may take where nothing else is asked for: any peer answers at once.
const PATIENCE_ASK: Duration = Duration::from_secs(5);
/// How long a change may take: it goes through the log, and an election fits in.
const PATIENCE_CHANGE: Duration = Duration::from_secs(30);
/// How long a picture may take.
const PATIENCE_DRAW: Duration = Duration::from_secs(600);

/// What a command works with.
struct Context {
    connection: Connection,
    output: Output,
    /// What to tell a user who interrupts: where the work goes on without him.
    on_interrupt: Mutex<Option<String>>,
    /// Why the job that is waited for does not move.
    pause: Mutex<Option<String>>,
}

impl Context {
    /// Makes a client; a call may take `default`, a watch as long as it needs, unless a timeout
    /// was asked for. What a peer says is believed only where a leader answers it.
    fn client(&self, default: Duration) -> Result<Client, Failure> {
        self.client_with(Options { leader_confirmed: true, ..self.asking(default) })
    }

    /// The same, and any peer is believed.
    fn any_client(&self, default: Duration) -> Result<Client, Failure> {
        self.client_with(Options { stale_reads: true, ..self.asking(default) })
    }

    fn asking(&self, default: Duration) -> Options {
        Options {
            deadline: self.connection.timeout.unwrap_or(default),
            watch_deadline: self.connection.timeout,
            ..Options::default()
        }
    }

    /// A client for a picture: its calls go through the log, its watch takes as long as drawing.
    fn patient_client(&self) -> Result<Client, Failure> {
        self.client_with(self.patience())
    }

    /// As [`Context::patient_client`], and it is told of previews.
    fn previewing_client(&self) -> Result<Client, Failure> {
        self.client_with(Options { previews: true, ..self.patience() })
    }

    fn patience(&self) -> Options {
        let timeout = self.connection.timeout;
        Options {
            deadline: timeout.unwrap_or(PATIENCE_CHANGE),
            watch_deadline: Some(timeout.unwrap_or(PATIENCE_DRAW)),
            leader_confirmed: true,
            ..Options::default()
        }
    }

    /// A client that asks one peer alone, once.
    fn client_of(&self, address: &str, default: Duration) -> Result<Client, Failure> {
        let deadline = self.connection.timeout.unwrap_or(default);
        let options = Options {
            deadline,
            attempt_timeout: deadline,
            retries_max: 0,
            learn_members: false,
            stale_reads: true,
            ..Options::default()
        };
        Ok(Client::connect([address], options)?)
    }

    fn client_with(&self, options: Options) -> Result<Client, Failure> {
        let options = Options { region: self.connection.region.clone(), ..options };
        Ok(Client::connect(&self.connection.endpoints, options)?)
    }

    fn say_on_interrupt(&self, hint: String) {
        *self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(hint);
    }

    fn note_pause(&self, words: Option<String>) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// Adds that the queue is paused, where that is why somebody has waited in vain.
    fn paused(&self, failure: Failure) -> Failure {
        if !matches!(failure.exit, Exit::Timeout | Exit::Interrupted) {
            return failure;
        }
        failure.why(self.pause.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    fn interrupted(&self) -> Failure {
        let hint = self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner).take();
        Failure::new(Exit::Interrupted, "interrupted").hints(hint)
    }
}

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let args = Args::read();
    let format = args.format();
    let mut connection = args.connection;
    // What only names contexts or prints completions needs no cluster.
    if args.command.asks_a_cluster()
        && let Err(failure) = contexts::resolve(&mut connection)
    {
        return failure.report(format);
    }
    let (on_interrupt, pause) = Default::default();
    let context = Context { connection, output: Output::new(format), on_interrupt, pause };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(Exit::Failed, format!("no async runtime: {error}")).report(format);
        }
    };
    let result = runtime.block_on(async {
        match dispatch(&context, args.command).await {
            Ok(exit) => Ok(exit),
            Err(failure) => Err(explain::explain(&context, context.paused(failure)).await),
        }
    });
    // A reader of standard input may hang in a thread that cannot be stopped.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(format),
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<Exit, Failure> {
    // The demo stops its children first, so it waits for signals itself.
    if let Command::Demo(args) = command {
        return demo::run(context, args).await;
    }
    // The live view gives the terminal back first, so it waits for them as well.
    if let Command::Top(args) = command {
        return top::run(context, args).await;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        match command {
            Command::Generate(args) => generate::run(context, args).await,
            Command::Job(args) => job::run(context, args.command).await,
            Command::Queue(args) => queue::run(context, args.command).await,
            Command::Config(args) => config::run(context, args.command).await,
            Command::Status(_) => status::run(context, false).await,
            Command::Cluster(args) => cluster::run(context, args.command).await,
            Command::Doctor(args) => doctor::run(context, args).await,
            Command::Context(args) => contexts::run(context, args.command),
            Command::Completions(args) => contexts::completions(context, args),
            Command::Member(args) => member::run(context, args.command).await,
            Command::Bench(args) => bench::run(context, args).await,
            Command::Demo(_) | Command::Top(_) => Ok(Exit::Ok),
        }
    };
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(context.interrupted()),
        _ = terminate.recv() => Err(context.interrupted()),
    }
}
