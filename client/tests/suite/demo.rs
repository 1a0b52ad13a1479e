//! `atelier demo` against a daemon that is this very test program.
//!
//! The script that stands for `atelierd` runs the test [`stands_in_for_the_daemon`] below, which
//! serves as a peer when its environment says so, and passes at once when it does not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::commands::{atelier, stderr};
use super::support::{Peer, World, lock, member, picture};

/// Names the configuration file of a peer to stand in for.
const CONFIG: &str = "TEST_DAEMON_CONFIG";

struct Place {
    directory: TempDir,
    atelierd: PathBuf,
    model: PathBuf,
}

/// A place with a model, and a daemon that runs these lines of shell with `$config`, `$pids`.
fn place(lines: &str) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("model_index.json"), "{}").unwrap();
    let atelierd = directory.path().join("atelierd");
    let pids = directory.path().join("pids");
    let text = format!(
        "#!/bin/sh\nconfig=$3\necho $$ >> '{}'\n[ \"$1 $2\" = 'start --config' ] || exit 9\n\
         [ -z \"$ATELIER_MODEL$ATELIER_ENDPOINTS\" ] || exit 8\n{lines}\n",
        pids.display()
    );
    std::fs::write(&atelierd, text).unwrap();
    std::fs::set_permissions(&atelierd, std::fs::Permissions::from_mode(0o755)).unwrap();
    Place { directory, atelierd, model }
}

impl Place {
    fn demo(&self, base_port: u16, more: &[&str]) -> Output {
        self.command(base_port, more).output().unwrap()
    }

    fn command(&self, base_port: u16, more: &[&str]) -> Command {
        let port = base_port.to_string();
        let mut command = atelier(&["demo", "--base-port", &port, "--prompt", "A cat!"]);
        command.arg("--directory").arg(self.directory.path().join("demo"));
        if !more.contains(&"--atelierd") {
            command.arg("--atelierd").arg(&self.atelierd);
        }
        command.args(more);
        // Both are meant for the command and must not reach the daemon.
        command.env("ATELIER_MODEL", &self.model).env("ATELIER_ENDPOINTS", "http://127.0.0.1:1");
        command
    }

    /// Process ids of the daemons that were started, a line each.
    fn pids(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("pids")).unwrap_or_default()
    }

    /// Fails when a process of a daemon's group is left.
    fn assert_nobody_left(&self, daemons: usize) {
        let pids = self.pids();
        assert_eq!(pids.lines().count(), daemons);
        // The kernel buries what was killed in its own time.
        until("every group is dead", || !pids.lines().any(lives));
    }
}

/// Waits for what another process does.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of the group runs. One that ended and was not waited for does not.
fn lives(group: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|it| std::fs::read_to_string(it.path().join("stat")).ok());
    let in_group = |stat: String| {
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<_> = rest.split(' ').collect();
        (fields[0] != "Z" && fields[0] != "X" && fields[2] == group).then_some(())
    };
    stats.filter_map(in_group).next().is_some()
}

/// A daemon that serves, with a child of its own in its group, as the engine is.
fn serving() -> String {
    let own = std::env::current_exe().unwrap();
    format!(
        "sleep 600 &\n{CONFIG}=\"$config\" exec '{}' --exact demo::stands_in_for_the_daemon \
         --nocapture",
        own.display()
    )
}

/// A block of ports of this test's own, below those that the system gives out.
fn some_port() -> u16 {
    static BLOCKS: AtomicU32 = AtomicU32::new(0);
    let block = std::process::id() * 8 + BLOCKS.fetch_add(1, Ordering::Relaxed);
    10_000 + u16::try_from(block % 500).unwrap() * 40
}

#[test]
fn stands_in_for_the_daemon() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let text = std::fs::read_to_string(Path::new(&config)).unwrap();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split_once(" = ").unwrap().1.trim_matches('"').to_owned()
    };
    std::fs::create_dir_all(value("data")).unwrap();
    let node: u64 = value("node").parse().unwrap();
    let world = Arc::new(Mutex::new(World::default()));
    lock(&world).members = vec![member(node, &format!("http://{}", value("grpc")))];
    let _peer = Peer::start(node, value("grpc").parse().unwrap(), world);
    println!("Running on local URL: http://{}", value("http"));
    loop {
        std::thread::park();
    }
}

#[test]
fn the_demo_draws_and_leaves_nobody_behind() {
    let place = place(&serving());
    let port = some_port();
    let output = place.demo(port, &["--timeout", "60s"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let file = place.directory.path().join("demo/a-cat-7.png");
    assert_eq!(std::fs::read(&file).unwrap(), picture(0));
    for words in [
        file.to_str().unwrap(),
        "leader   peer 1",
        "drawn by peer 2",
        "start of the cluster",
        "queue",
        "encode",
        "denoise",
        "decode",
        "fetch",
        "export ATELIER_ENDPOINTS=http://127.0.0.1:",
        "--model DIR",
        "toy",
    ] {
        assert!(text.contains(words), "expected {words:?} in {text}");
    }
    place.assert_nobody_left(3);

    let again = place.demo(port, &["--timeout", "60s"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    place.assert_nobody_left(6);
    let other_size = place.demo(port, &["--timeout", "60s", "--peers", "2"]);
    assert_eq!(other_size.status.code(), Some(1), "{}", stderr(&other_size));
}

#[test]
fn the_leader_is_stopped_last() {
    // Peer 1 leads; were all asked at once, the others would end after it.
    let serve = serving().replace("exec ", "");
    let place = place(&format!(
        "trap 'case $config in *peer-1.toml) ;; *) sleep 0.5 ;; esac; echo $config >> $0.ends; \
         exit 0' TERM\n{serve} &\nwait"
    ));
    let output = place.demo(some_port(), &["--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let ends = std::fs::read_to_string(place.directory.path().join("atelierd.ends")).unwrap();
    let ends: Vec<_> = ends.lines().collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(ends[2].ends_with("peer-1.toml"), "{ends:?}");
    place.assert_nobody_left(3);
}

#[test]
fn a_busy_port_moves_the_demo_and_is_told() {
    let place = place(&serving());
    let port = some_port();
    // Whether this or another program holds it, it is busy.
    let _held = std::net::TcpListener::bind(("127.0.0.1", port));
    let output = place.demo(port, &["--peers", "1", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("a port from {port} on is busy; using ")));
    place.assert_nobody_left(1);
}

#[test]
fn a_daemon_that_dies_is_shown_with_the_end_of_its_log() {
    let place = place("echo 'engine.model: no such directory' >&2; exit 3");
    let output = place.demo(some_port(), &[]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ended with code 3") && text.contains("no such directory"), "{text}");
}

#[test]
fn a_daemon_that_is_never_ready_is_stopped_with_its_children() {
    let place = place("sleep 600 &\nexec sleep 600");
    let output = place.demo(some_port(), &["--peers", "2", "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("not ready in time"), "{}", stderr(&output));
    place.assert_nobody_left(2);
}

#[test]
fn no_daemon_outlives_a_demo_that_was_killed() {
    let place = place("exec sleep 600");
    let mut demo = place.command(some_port(), &[]).stderr(Stdio::null()).spawn().unwrap();
    until("three daemons are started", || place.pids().lines().count() == 3);
    demo.kill().unwrap();
    demo.wait().unwrap();
    place.assert_nobody_left(3);
}

#[test]
fn a_demo_that_is_terminated_stops_its_daemons_and_says_so() {
    let place = place("exec sleep 600");
    let mut demo = place.command(some_port(), &[]).stderr(Stdio::null()).spawn().unwrap();
    until("three daemons are started", || place.pids().lines().count() == 3);
    let pid = rustix::process::Pid::from_raw(demo.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    place.assert_nobody_left(3);
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let place = place("exit 0");
    let absent = place.demo(some_port(), &["--model", "/absent"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).contains("hint: name one with --model"), "{}", stderr(&absent));
    let absent = place.demo(some_port(), &["--atelierd", "/absent"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).contains("hint: build it with"), "{}", stderr(&absent));
    place.assert_nobody_left(0);
}
