//! Prints results: aligned for a terminal, tab-separated for a pipe, JSON where asked for.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};

use super::failure::Failure;
use super::json::{self, Document};

/// How results are printed. Without a word on each variant, so that help stays on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) format: Format,
    terminal: bool,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format, terminal: std::io::stdout().is_terminal() }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(self) -> bool {
        self.terminal
    }

    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a document, indented.
    pub(super) fn document(self, document: &Document) -> Result<(), Failure> {
        self.bytes(format!("{}\n", json::pretty(document)).as_bytes())
    }

    /// Prints a document on one line.
    pub(super) fn document_line(self, document: &Document) -> Result<(), Failure> {
        self.bytes(format!("{}\n", json::line(document)).as_bytes())
    }

    /// Prints a line, or several, on standard output.
    pub(super) fn line(self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{}\n", plain_lines(text)).as_bytes())
    }

    /// Writes to standard output. A reader who has seen enough is no failure.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A moment: how long ago for a person, RFC 3339 for a pipe.
    pub(super) fn moment(self, unix_ms: u64) -> String {
        if !self.terminal {
            return rfc3339(unix_ms);
        }
        let then = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
        ago(then.elapsed().unwrap_or_default())
    }

    /// Prints rows under a header.
    pub(super) fn table(self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        if !self.terminal {
            let mut text = header.join("\t");
            for row in rows {
                let cells: Vec<_> = row.iter().map(|cell| plain(cell)).collect();
                text.push('\n');
                text.push_str(&cells.join("\t"));
            }
            text.push('\n');
            return self.bytes(text.as_bytes());
        }
        self.line(&aligned(header, rows))
    }
}

/// Rows under a header, each column as wide as its widest cell.
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // A terminal wraps a long row better than a table that squeezes each column.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    table.trim_fmt()
}

/// Says something that is no result, on standard error.
pub(super) fn note(text: &str) {
    // A note that cannot be told is not worth an error.
    let _ = writeln!(std::io::stderr(), "{}", plain_lines(text));
}

/// Without control characters: what others wrote must not steer the terminal.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The same, but for the ends of lines.
pub(super) fn plain_lines(text: &str) -> String {
    text.replace(|letter: char| letter.is_control() && letter != '\n', " ")
}

/// A time that passed, in its largest unit.
pub(super) fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// A dash for nothing.
pub(super) fn dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The beginning of a text, with an ellipsis where something is left out.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars();
    let mut head: String = chars.by_ref().take(chars_max).collect();
    if chars.next().is_some() {
        head.pop();
        head.push('…');
    }
    head
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
///
/// Source: days to civil date, Howard Hinnant, `chrono`-compatible low-level date algorithms.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1_460;
    let year_of_era = (day_of_era - leaps + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_290_563_007, "2026-11-21T19:49:23.007Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), expected);
        }
    }

    #[test]
    fn times_that_passed_are_told_in_their_largest_unit() {
        let told = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(told(0), "0 s ago");
        assert_eq!(told(119), "119 s ago");
        assert_eq!(told(7_199), "119 min ago");
        assert_eq!(told(172_799), "47 h ago");
        assert_eq!(told(172_800), "2 days ago");
    }

    #[test]
    fn long_texts_are_shortened_by_characters() {
        assert_eq!(short("蓝色背景上的猫", 7), "蓝色背景上的猫");
        assert_eq!(short("蓝色背景上的猫", 4), "蓝色背…");
    }
}
