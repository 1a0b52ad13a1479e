//! The table of one benchmark, kept as a section of its own in `node/BENCH.md`, and what stands
//! beside its figures.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows of a section: figure, value, and what it is held against.
pub struct Report {
    section: String,
    about: String,
    rows: Vec<[String; 3]>,
}

impl Report {
    pub fn new(section: &str) -> Report {
        Report { section: section.to_owned(), about: String::new(), rows: Vec::new() }
    }

    /// Says above the table how its figures came about.
    pub fn about(mut self, about: &str) -> Report {
        self.about = format!("{about}\n\n");
        self
    }

    pub fn row(&mut self, figure: &str, value: String, beside: String) {
        println!("{figure}: {value} ({beside})");
        self.rows.push([figure.to_owned(), value, beside]);
    }

    /// Replaces the section of the same name, or adds it at the end.
    pub fn write(&self) {
        let mut text = format!(
            "## {}\n\n{}Machine: {}.\n\n| figure | value | beside, in the same run |\n|---|---|---|\n",
            self.section,
            self.about,
            machine()
        );
        for [figure, value, beside] in &self.rows {
            let _ = writeln!(text, "| {figure} | {value} | {beside} |");
        }
        keep(&self.section, &text);
    }
}

/// Puts a section with its heading into `node/BENCH.md`, in the place of the one of the same name.
pub fn keep(section: &str, text: &str) {
    // The crates below `node` keep their figures in the same file.
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.ends_with("node"));
    let path = node.expect("this crate lies in node").join("BENCH.md");
    let whole = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, with_section(&whole, section, text)).expect("write the table");
    println!("wrote {}", path.display());
}

fn with_section(whole: &str, section: &str, text: &str) -> String {
    let heading = format!("## {section}\n");
    let Some(start) = whole.find(&heading) else {
        return format!("{}\n\n{text}", whole.trim_end());
    };
    let rest = &whole[start + heading.len()..];
    let end = rest.find("\n## ").map_or(whole.len(), |at| start + heading.len() + at + 1);
    let gap = if end < whole.len() { "\n" } else { "" };
    format!("{}{text}{gap}{}", &whole[..start], &whole[end..])
}

pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores")
}

pub fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

pub fn longest(times: &[Duration]) -> Duration {
    times.iter().copied().max().unwrap_or_default()
}

pub fn spread(times: &mut [Duration]) -> String {
    times.sort();
    format!("median; {} to {}", seconds(times[0]), seconds(longest(times)))
}

pub fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Appends and syncs of one small record after another to a plain file.
pub fn syncs_per_second() -> f64 {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut file = File::create(directory.path().join("plain")).expect("a file");
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_millis(500) {
        file.write_all(&[7; 256]).expect("append");
        file.sync_data().expect("fdatasync");
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
