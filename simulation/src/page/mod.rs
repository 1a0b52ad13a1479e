//! A run as one page that needs nothing else: who ran, who led, what went wrong and what clients were told,
//! over virtual time, as Jepsen draws it.

mod of_cluster;
mod of_core;

use crate::operations::{Operation, Outcome};
use crate::scenario::{Broken, Played};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Pixels of the names on the left.
const NAMES: u64 = 120;
/// Pixels of the time that is drawn, before anybody zooms.
const WIDTH: u64 = 1_480;
/// Pixels of one row.
const ROW: u64 = 14;
/// Pixels of the least bar: what takes no time is seen too.
const BAR_MIN: u64 = 3;

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// When it ends.
    pub until_ms: u64,
    /// From top to bottom.
    pub lanes: Vec<Lane>,
    /// Faults that befall everybody, or somebody.
    pub faults: Vec<Bar>,
}

/// What happened to one of those who take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Who.
    pub name: String,
    /// In any order; what overlaps is drawn in rows.
    pub bars: Vec<Bar>,
}

/// Something that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// From when.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
    /// What it is.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

/// The kinds of bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process lives.
    Life,
    /// It leads.
    Lead,
    /// Something is wrong.
    Fault,
    /// A worker draws, or an operator acts.
    Work,
    /// An operation that was done.
    Done,
    /// An operation that was certainly not done.
    Refused,
    /// An operation of which nobody knows.
    Unknown,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Kind::Life => "life",
            Kind::Lead => "lead",
            Kind::Fault => "fault",
            Kind::Work => "work",
            Kind::Done => "done",
            Kind::Refused => "refused",
            Kind::Unknown => "unknown",
        }
    }
}

impl Story {
    /// Tells what came of a run.
    pub fn of(played: &Played) -> Story {
        match played {
            Played::Core(run) => of_core::story(run),
            Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
                of_cluster::story(run)
            }
            Played::Panicked(_) => Story::default(),
        }
    }

    /// Draws the page.
    pub fn page(&self, title: &str, broken: Option<&Broken>) -> String {
        let verdict = match broken {
            Some(broken) => format!("<p class=broken>{}</p>", escaped(&broken.to_string())),
            None => "<p>no property is broken</p>".to_owned(),
        };
        let (drawing, height) = self.drawing();
        let all = NAMES + WIDTH + 10;
        let title = escaped(title);
        format!(
            "<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>\
             <h1>{title}</h1>{verdict}<p>{KEY} <label>zoom <input id=zoom type=range min=1 max=12 step=0.5 value=1></label></p>\
             <div id=page><svg id=all width={all} height={height} viewBox=\"0 0 {all} {height}\" preserveAspectRatio=none>\
             {drawing}</svg></div><script>{SCRIPT}</script>\n"
        )
    }

    fn drawing(&self) -> (String, u64) {
        let mut text = String::new();
        let mut top = ROW * 2;
        let faults = Lane { name: "faults".to_owned(), bars: self.faults.clone() };
        let lanes: Vec<(&Lane, u64, Vec<u64>)> = std::iter::once(&faults)
            .chain(&self.lanes)
            .map(|lane| {
                let (rows, count) = rows(&lane.bars);
                let at = top;
                top += ROW * count + 6;
                (lane, at, rows)
            })
            .collect();
        let height = top + ROW;
        self.rule(&mut text, height);
        for fault in &self.faults {
            let (x, width) = self.place(fault);
            write!(text, "<rect class=shade x={x} y=0 width={width} height={height} />")
                .expect("a text grows");
        }
        for (lane, at, rows) in lanes {
            let (base, name) = (at + ROW - 4, escaped(&lane.name));
            write!(text, "<text x=4 y={base}>{name}</text>").expect("a text grows");
            for (bar, row) in lane.bars.iter().zip(rows) {
                let ((x, width), y) = (self.place(bar), at + row * ROW);
                let (class, told) = (bar.kind.class(), escaped(&bar.text));
                let (from, to) = (seconds(bar.from_ms), seconds(bar.to_ms));
                write!(
                    text,
                    "<rect class={class} x={x} y={y} width={width} height={}><title>{from} to {to}: {told}</title></rect>",
                    ROW - 2
                )
                .expect("a text grows");
            }
        }
        (text, height)
    }

    /// A line every so many seconds.
    fn rule(&self, text: &mut String, height: u64) {
        let step_ms = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000];
        let step_ms =
            step_ms.into_iter().find(|step| self.until_ms / step <= 24).unwrap_or(900_000);
        for at_ms in (0..=self.until_ms).step_by(step_ms as usize) {
            let x = self.x(at_ms);
            write!(
                text,
                "<line x1={x} y1={ROW} x2={x} y2={height} /><text x={x} y={}>{} s</text>",
                ROW - 3,
                at_ms / 1_000
            )
            .expect("a text grows");
        }
    }

    fn x(&self, at_ms: u64) -> u64 {
        NAMES + at_ms.min(self.until_ms) * WIDTH / self.until_ms.max(1)
    }

    fn place(&self, bar: &Bar) -> (u64, u64) {
        let (from, to) = (self.x(bar.from_ms), self.x(bar.to_ms));
        (from, to.saturating_sub(from).max(BAR_MIN))
    }
}

/// One lane for each session that asked something.
fn sessions(operations: &[Operation], until_ms: u64, name: impl Fn(u64) -> String) -> Vec<Lane> {
    let mut lanes: BTreeMap<u64, Lane> = BTreeMap::new();
    for operation in operations {
        let kind = match operation.outcome {
            Outcome::Ok { .. } => Kind::Done,
            Outcome::Refused(_) => Kind::Refused,
            Outcome::Unknown(_) => Kind::Unknown,
        };
        let from_ms = operation.called.at_us / 1_000;
        let to_ms = operation.returned.map_or(until_ms, |at| at.at_us / 1_000);
        let bar = Bar { from_ms, to_ms, kind, text: operation.to_string() };
        let session = operation.session;
        let lane =
            lanes.entry(session).or_insert_with(|| Lane { name: name(session), bars: vec![] });
        lane.bars.push(bar);
    }
    lanes.into_values().collect()
}

/// The row of each bar, so that none lies upon another, and how many rows there are. A leadership lies upon
/// the life of its process.
fn rows(bars: &[Bar]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..bars.len()).collect();
    order.sort_by_key(|at| (bars[*at].from_ms, *at));
    let (mut places, mut ends) = (vec![0; bars.len()], vec![0]);
    for at in order {
        let bar = &bars[at];
        if matches!(bar.kind, Kind::Life | Kind::Lead) {
            continue;
        }
        let free = ends.iter().position(|end| *end <= bar.from_ms).unwrap_or(ends.len());
        ends.resize(ends.len().max(free + 1), 0);
        ends[free] = bar.to_ms.max(bar.from_ms + 1);
        places[at] = free as u64;
    }
    (places, ends.len() as u64)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:13px sans-serif;margin:16px}h1{font-size:16px}.broken{color:#b00;font-weight:bold}\
#page{overflow-x:auto}text{font:11px sans-serif;fill:#333}line{stroke:#eee}\
.life,.k-life{fill:#cfd8dc;background:#cfd8dc}.lead,.k-lead{fill:#3f51b5;background:#3f51b5}\
.fault,.k-fault{fill:#e65100;background:#e65100}.shade{fill:#e65100;opacity:.05}\
.work,.k-work{fill:#90caf9;background:#90caf9}.done,.k-done{fill:#66bb6a;background:#66bb6a}\
.refused,.k-refused{fill:#e57373;background:#e57373}.unknown,.k-unknown{fill:#ffb300;background:#ffb300}\
rect:hover{stroke:#000}i{display:inline-block;width:12px;height:12px;margin:0 4px 0 12px}";

const KEY: &str = "<i class=k-life></i>runs<i class=k-lead></i>leads<i class=k-fault></i>fault\
<i class=k-work></i>works<i class=k-done></i>done<i class=k-refused></i>refused<i class=k-unknown></i>unknown";

const SCRIPT: &str = "const s=document.getElementById('all'),w=s.width.baseVal.value;\
document.getElementById('zoom').oninput=e=>s.setAttribute('width',w*e.target.value)";

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(from_ms: u64, to_ms: u64, kind: Kind) -> Bar {
        Bar { from_ms, to_ms, kind, text: "a <b> & \"c\"".to_owned() }
    }

    #[test]
    fn what_overlaps_is_drawn_in_rows_and_what_follows_in_the_same() {
        let bars = [(0, 10), (5, 15), (10, 20), (15, 16)].map(|(a, b)| bar(a, b, Kind::Done));
        assert_eq!(rows(&bars), (vec![0, 1, 0, 1], 2));
        let ruling = [bar(0, 10, Kind::Life), bar(2, 8, Kind::Lead)];
        assert_eq!(rows(&ruling), (vec![0, 0], 1));
    }

    #[test]
    fn a_page_needs_nothing_else_and_escapes_what_it_is_told() {
        let lanes = vec![Lane { name: "<peer>".to_owned(), bars: vec![bar(0, 500, Kind::Life)] }];
        let story = Story { until_ms: 1_000, lanes, faults: vec![bar(100, 200, Kind::Fault)] };
        let page = story.page("seed 1", None);
        assert!(page.contains("&lt;peer&gt;") && page.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
        for outside in ["http", "src=", "href="] {
            assert!(!page.contains(outside), "{outside}");
        }
        let (x, width) = story.place(&bar(500, 500, Kind::Done));
        assert_eq!((x, width), (NAMES + WIDTH / 2, BAR_MIN));
    }
}
