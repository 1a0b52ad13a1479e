//! How many jobs a second come in by batches.

use std::sync::Arc;

use atelier_client::{BATCH_JOBS_MAX, BatchOutcome, Client};

use crate::load::{self, Figures, Limit};
use crate::queue::{clients, job};
use crate::report::{Report, milliseconds, syncs_per_second};
use crate::support::{Cluster, Setup};
use crate::{extent, write};

/// Clients, and the calls of each: in all fewer jobs than may wait.
const LEVELS: [(usize, u64); 3] = [(1, 40), (4, 20), (16, 5)];
const ROUNDS: u64 = 3;
const RATE_MIN: f64 = 50_000.0;

const ABOUT: &str = "\
    Written by `make bench-endurance ONLY=batch`: three peers without an engine on loopback, \
    1,000 jobs of 256 bytes a call, one call under way per client; each round has a fresh \
    cluster, and the one in the middle by rate is told.";

pub(crate) async fn measure() {
    let (rounds, short) = extent("ROUNDS", ROUNDS);
    let mut report = Report::new("Batches").about(ABOUT);
    for (clients, calls) in LEVELS {
        let mut figures = Vec::new();
        for _ in 0..rounds {
            figures.push(round(clients, calls).await);
        }
        figures.sort_by(|(one, _), (other, _)| one.rate().total_cmp(&other.rate()));
        tell(&mut report, clients, &figures);
    }
    write(&report, short);
}

/// What so many clients reach in a fresh cluster, beside the disk's syncs a second.
async fn round(count: usize, calls: u64) -> (Figures, f64) {
    let cluster = Cluster::start(Setup { engine: false, log: "warn", ..Setup::default() });
    let clients = clients(&cluster, count).await;
    load::run(&clients, Limit::Calls(1), call).await;
    let syncs = syncs_per_second();
    let figures = load::run(&clients, Limit::Calls(calls), call).await;
    assert_eq!(figures.failed(), 0, "{:?}", figures.errors);
    (figures, syncs)
}

async fn call(client: Arc<Client>) -> Result<(), String> {
    let wanted: Vec<_> = (0..BATCH_JOBS_MAX).map(|_| job()).collect();
    let outcomes = client.submit_batch(&wanted).await.map_err(|error| error.to_string())?;
    let refused = outcomes.iter().find(|outcome| !matches!(outcome, BatchOutcome::Accepted(_)));
    refused.map_or(Ok(()), |refused| Err(format!("{refused:?}")))
}

fn tell(report: &mut Report, clients: usize, rounds: &[(Figures, f64)]) {
    let jobs = |figures: &Figures| figures.rate() * BATCH_JOBS_MAX as f64;
    let (middle, syncs) = &rounds[rounds.len() / 2];
    let value = format!(
        "{:.0} jobs/s, a call p50 {}, p99 {}",
        jobs(middle),
        milliseconds(middle.times.at(0.5)),
        milliseconds(middle.times.at(0.99))
    );
    let (least, most) = (jobs(&rounds[0].0), jobs(&rounds[rounds.len() - 1].0));
    let beside = format!(
        "{least:.0} to {most:.0} in {} rounds; {:.2} of the target, {RATE_MIN:.0}; \
         {syncs:.0} fdatasync/s",
        rounds.len(),
        jobs(middle) / RATE_MIN
    );
    let plural = if clients == 1 { "" } else { "s" };
    report.row(&format!("batch submit, {clients} client{plural}"), value, beside);
}
