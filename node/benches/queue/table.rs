//! The table of a run, and its section of `node/BENCH.md`.

use std::fmt::Write as _;

use crate::Work;
use crate::load::Figures;
use crate::report::{keep, machine, milliseconds};

const SECTION: &str = "The queue beside others";

/// Rounds by system, work and number of clients.
pub(crate) struct Table {
    pub(crate) rounds: usize,
    rows: Vec<Row>,
    absent: Vec<String>,
    syncs: Vec<f64>,
}

struct Row {
    system: &'static str,
    work: Work,
    clients: usize,
    rounds: Vec<Figures>,
}

impl Row {
    /// The round whose rate is in the middle.
    fn middle(&self) -> &Figures {
        let mut sorted: Vec<&Figures> = self.rounds.iter().collect();
        sorted.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
        sorted[sorted.len() / 2]
    }

    fn what(&self) -> String {
        let plural = if self.clients == 1 { "" } else { "s" };
        let verb = match (self.work, self.system) {
            (Work::Accept, "atelier") => "durable submit",
            (Work::Accept, "etcd") => "put",
            (Work::Accept, _) => "publish",
            (Work::Cycle, "atelier") => "submit, assign, complete",
            (Work::Cycle, _) => "publish, consume, acknowledge",
        };
        format!("{verb}, {} client{plural}", self.clients)
    }
}

impl Table {
    pub(crate) fn new(rounds: usize) -> Self {
        Self { rounds, rows: Vec::new(), absent: Vec::new(), syncs: Vec::new() }
    }

    pub(crate) fn absent(&mut self, system: &str, package: &str) {
        println!("{system} is not installed; `apt-get install -y {package}` brings it");
        self.absent.push(system.to_owned());
    }

    pub(crate) fn add(
        &mut self,
        system: &'static str,
        work: Work,
        clients: usize,
        figures: Figures,
        syncs: Option<f64>,
    ) {
        for (error, count) in &figures.errors {
            println!("{system}: {count} × {error}");
        }
        println!("{system} {work:?} {clients}: {}", told(&figures));
        self.syncs.extend(syncs);
        let same = |row: &&mut Row| (row.system, row.work, row.clients) == (system, work, clients);
        match self.rows.iter_mut().find(same) {
            Some(row) => row.rounds.push(figures),
            None => self.rows.push(Row { system, work, clients, rounds: vec![figures] }),
        }
    }

    /// How many times the rate of the same work in the other system, for rows of Atelier.
    fn beside(&self, row: &Row) -> String {
        let others = self.rows.iter().filter(|other| {
            row.system == "atelier"
                && other.system != "atelier"
                && (other.work, other.clients) == (row.work, row.clients)
        });
        let ratio = |other: &Row| {
            let ratio = row.middle().rate() / other.middle().rate();
            format!("{ratio:.2} × {}", other.system)
        };
        others.map(ratio).collect::<Vec<_>>().join(", ")
    }

    /// Prints the section, and puts it into `node/BENCH.md` after a whole run.
    pub(crate) fn write(&self, whole: bool) {
        let mut section = format!(
            "## {SECTION}\n\nWritten by `make bench-queue`: three nodes of each system on loopback, \
             records of 256 bytes, one call under way per client, at most 64 connections a system; \
             callers of Atelier share 4 clients of its library, which makes calls that meet one call; \
             the middle one of {} rounds by rate.\n\nMachine: {}; {:.0} fdatasync/s of 256-byte \
             appends in the same run. The clients run on the same cores.\n",
            self.rounds,
            machine(),
            self.syncs.iter().sum::<f64>() / self.syncs.len().max(1) as f64,
        );
        for system in &self.absent {
            let _ = writeln!(section, "\n{system} was not installed and is left out.");
        }
        section += "\nNATS acknowledges before anything is synced to a disk; it stands here for \
                    reference, its figures are of another promise.\n\n\
                    | system | work | a second | p50 | p99 | max | failed | Atelier's rate |\n\
                    |---|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let figures = row.middle();
            let _ = writeln!(
                section,
                "| {} | {} | {:.0} | {} | {} | {} | {} | {} |",
                row.system,
                row.what(),
                figures.rate(),
                milliseconds(figures.times.at(0.5)),
                milliseconds(figures.times.at(0.99)),
                milliseconds(figures.times.max()),
                figures.failed(),
                self.beside(row)
            );
        }
        println!("\n{section}");
        if whole {
            keep(SECTION, &section);
        }
    }
}

fn told(figures: &Figures) -> String {
    format!(
        "{:.0}/s, p50 {}, p99 {}, max {}, {} failed",
        figures.rate(),
        milliseconds(figures.times.at(0.5)),
        milliseconds(figures.times.at(0.99)),
        milliseconds(figures.times.max()),
        figures.failed()
    )
}
