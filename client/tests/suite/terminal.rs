//! Commands on a real terminal: what they ask, and how they leave it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::commands::{JOB, atelier, submit};
use super::support::{Peer, cluster, lock};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
/// What gives a screen back.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// A command that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command on a pseudo-terminal of its own.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    modes: String,
    child: Child,
    pieces: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(peer: &Peer, args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        let modes = modes(&theirs);
        let mut command = on_its_own_terminal(&atelier(args));
        let [stdin, stdout, stderr] = [(); 3].map(|()| theirs.try_clone().unwrap());
        command.env("ATELIER_ENDPOINTS", &peer.address);
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        let ours = File::from(ours);
        let pieces = read_on(ours.try_clone().unwrap());
        Self { ours, theirs, modes, child, pieces, shown: String::new() }
    }

    /// Reads until a text is shown.
    fn until(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.shown.contains(text) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let piece = self.pieces.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn is_as_before(&self) -> bool {
        modes(&self.theirs) == self.modes
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn modes(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).unwrap())
}

/// The same command as the leader of a session with the terminal on its standard input, so that
/// Ctrl-C reaches it. A tool of the system does it: the call between fork and exec is not safe Rust.
fn on_its_own_terminal(plain: &Command) -> Command {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Reads beside the test, which may then stop waiting.
fn read_on(mut from: File) -> Receiver<Vec<u8>> {
    let (to, pieces) = channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4_096];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            if to.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

/// Answers the question before a removal, and tells the exit code and whom it removed.
fn asked_to_remove(answer: &str) -> (Option<i32>, Vec<String>, String) {
    let (_world, peers) = cluster(3);
    let remove = ["member", "remove", "3", "--accept-two-voters"];
    let mut terminal = Terminal::start(&peers[0], &remove);
    terminal.until("type 3 ");
    assert!(terminal.shown.contains("tolerates  1 → 0 failures"), "{}", terminal.shown);
    assert!(peers[0].calls("remove_member").is_empty(), "it asks first");
    terminal.type_in(answer);
    let code = terminal.ended();
    if code != Some(0) {
        terminal.until("error:");
    }
    assert!(terminal.is_as_before());
    (code, peers[0].calls("remove_member"), terminal.shown.clone())
}

#[test]
fn the_right_word_removes_a_member() {
    let (code, removed, shown) = asked_to_remove("3\n");
    assert_eq!((code, removed), (Some(0), vec!["3".to_owned()]), "{shown}");
}

#[test]
fn a_wrong_word_changes_nothing() {
    for wrong in ["2\n", "yes\n", "\n", "33\n"] {
        let (code, removed, shown) = asked_to_remove(wrong);
        assert_eq!((code, removed), (Some(1), Vec::new()), "{wrong:?}: {shown}");
    }
}

#[test]
fn no_word_changes_nothing() {
    let (code, removed, shown) = asked_to_remove(CTRL_C);
    assert_eq!((code, removed), (Some(130), Vec::new()), "{shown}");
    let (code, removed, shown) = asked_to_remove(CTRL_D);
    assert_eq!((code, removed), (Some(1), Vec::new()), "{shown}");
}

#[test]
fn jobs_are_forgotten_only_when_their_number_is_typed() {
    let (world, peers) = cluster(1);
    submit(&peers[0], JOB);
    for (answer, code, left) in [("2\n", 1, true), (CTRL_C, 130, true), ("1\n", 0, false)] {
        let mut terminal = Terminal::start(&peers[0], &["job", "purge", "--phase", "failed"]);
        terminal.until("type 1 to forget them: ");
        terminal.type_in(answer);
        assert_eq!(terminal.ended(), Some(code), "{answer:?}: {}", terminal.shown);
        assert_eq!(lock(&world).jobs.contains_key(JOB), left, "{answer:?}");
    }
}

/// Looks at the live view, leaves it, and tells the exit code.
fn left_by(leave: impl FnOnce(&mut Terminal)) -> Option<i32> {
    let (_world, peers) = cluster(2);
    let mut terminal = Terminal::start(&peers[0], &["top", "--interval", "100ms"]);
    terminal.until("q or Ctrl-C leaves");
    assert!(terminal.shown.contains("peer 1 leads"), "{}", terminal.shown);
    assert!(!terminal.is_as_before(), "keys come at once and unseen");
    leave(&mut terminal);
    let code = terminal.ended();
    terminal.until(LEAVE);
    assert!(terminal.is_as_before(), "it is given back as it was");
    code
}

#[test]
fn the_live_view_gives_the_terminal_back() {
    assert_eq!(left_by(|terminal| terminal.type_in("xq")), Some(0));
    assert_eq!(left_by(|terminal| terminal.type_in(CTRL_C)), Some(0));
    let terminate = |terminal: &mut Terminal| {
        let pid = Pid::from_raw(terminal.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    };
    assert_eq!(left_by(terminate), Some(130));
}

#[test]
fn the_live_view_gives_the_terminal_back_after_an_error() {
    let (_world, peers) = cluster(1);
    let mut terminal = Terminal::start(&peers[0], &["top", "--endpoints", "nowhere"]);
    terminal.until("there is no host with a port");
    assert_eq!(terminal.ended(), Some(2));
    let (view, after) = terminal.shown.split_once(LEAVE).unwrap();
    assert!(!view.contains("error:") && after.contains("error:"), "{:?}", terminal.shown);
    assert!(terminal.is_as_before());
}

#[test]
fn the_live_view_goes_on_when_nobody_answers() {
    let (_world, mut peers) = cluster(1);
    let mut terminal = Terminal::start(&peers[0], &["top", "--interval", "100ms"]);
    terminal.until("peer 1 leads");
    peers[0].kill();
    terminal.until("NO PEER ANSWERS");
    terminal.type_in("q");
    assert_eq!(terminal.ended(), Some(0));
}
