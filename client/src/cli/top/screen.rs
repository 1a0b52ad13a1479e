//! The terminal while the live view has it: another screen, no echo, keys at once.
//!
//! However the view ends (a key, an error, a panic, a signal that is waited for), the terminal is
//! given back as it was.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// The other screen, without a cursor; what is too long for a line is cut, not wrapped.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Lines where the terminal does not say how many it has.
const LINES_DEFAULT: usize = 24;

/// The terminal, taken until this is dropped.
pub(super) struct Screen {
    taken: Arc<Taken>,
}

/// What is to be given back, by whoever comes first.
struct Taken {
    output: File,
    /// Where keys come from, and how it was; `None` where nobody can type.
    input: Option<(OwnedFd, Termios)>,
    given_back: AtomicBool,
}

impl Screen {
    /// Takes the terminal of this process.
    ///
    /// # Errors
    /// When it cannot be written to, or its modes cannot be changed; it is then as it was.
    pub(super) fn take() -> io::Result<Self> {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let stdin = io::stdin();
        let input = stdin.is_terminal().then(|| stdin.as_fd().try_clone_to_owned()).transpose()?;
        Self::of(output.into(), input)
    }

    fn of(output: File, input: Option<OwnedFd>) -> io::Result<Self> {
        let with_modes = |input: OwnedFd| tcgetattr(&input).map(|modes| (input, modes));
        let input = input.map(with_modes).transpose()?;
        let taken = Arc::new(Taken { output, input, given_back: AtomicBool::new(false) });
        let screen = Self { taken: taken.clone() };
        // A panic is told when the terminal is as it was, or it would vanish with the screen.
        let told_by = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            taken.give_back();
            told_by(panic);
        }));
        if let Some((input, modes)) = &screen.taken.input {
            tcsetattr(input, OptionalActions::Now, &keys_at_once(modes))?;
        }
        (&screen.taken.output).write_all(ENTER.as_bytes())?;
        Ok(screen)
    }

    /// How many lines fit.
    pub(super) fn lines(&self) -> usize {
        let size = tcgetwinsize(&self.taken.output).ok();
        size.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(LINES_DEFAULT)
    }

    /// Shows these lines, and nothing else.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut text = HOME.to_owned();
        for (at, line) in lines.iter().enumerate() {
            // No end after the last line: the screen would scroll.
            text.push_str(if at == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str(CLEAR_LINE);
        }
        text.push_str(CLEAR_BELOW);
        // In one piece, so that nothing flickers.
        (&self.taken.output).write_all(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.taken.give_back();
    }
}

impl Taken {
    fn give_back(&self) {
        if self.given_back.swap(true, Ordering::SeqCst) {
            return;
        }
        // Nothing can be done about a terminal that is gone.
        let _ = (&self.output).write_all(LEAVE.as_bytes());
        if let Some((input, modes)) = &self.input {
            let _ = tcsetattr(input, OptionalActions::Now, modes);
        }
    }
}

/// Keys come one by one and unseen. Ctrl-C still interrupts; Ctrl-Z does nothing, since a view that
/// is stopped would leave the terminal as it is.
fn keys_at_once(modes: &Termios) -> Termios {
    let mut modes = modes.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
    modes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::io::Read;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let modes = |of: &OwnedFd| format!("{:?}", tcgetattr(of).unwrap());
        let before = modes(&theirs);
        let (output, input) = (theirs.try_clone().unwrap(), theirs.try_clone().unwrap());
        let as_before_when_told = Arc::new(AtomicBool::new(false));
        let (told, terminal, unchanged) =
            (as_before_when_told.clone(), theirs.try_clone().unwrap(), before.clone());
        std::panic::set_hook(Box::new(move |_| {
            told.store(modes(&terminal) == unchanged, Ordering::SeqCst);
        }));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let screen = Screen::of(output.into(), Some(input)).unwrap();
            assert_ne!(modes(&theirs), before, "it was taken");
            screen.draw(&["all is well".to_owned()]).unwrap();
            panic!("planted");
        }));
        assert!(panicked.is_err());
        assert!(as_before_when_told.load(Ordering::SeqCst), "a panic would vanish with the screen");
        assert_eq!(modes(&theirs), before);
        let mut shown = [0; 256];
        let length = File::from(ours).read(&mut shown).unwrap();
        let shown = String::from_utf8_lossy(&shown[..length]).into_owned();
        let expected = format!("{ENTER}{HOME}all is well{CLEAR_LINE}{CLEAR_BELOW}{LEAVE}");
        assert_eq!(shown, expected);
    }
}
