//! How long a durable submit takes at half of the highest rate, while snapshots are made and the
//! log is purged.

use std::time::Duration;

use atelier_client::Client;

use crate::load::{self, Limit};
use crate::pace::{Window, open_loop};
use crate::queue::{clients, drained, ended, submit};
use crate::report::{Report, milliseconds, syncs_per_second};
use crate::sample::upkeep;
use crate::support::Cluster;
use crate::{extent, instant, write};

const MINUTES: u64 = 10;
const CLIENTS: usize = 64;
/// Calls of each client at the highest rate: fewer than may wait in all.
const CALLS: u64 = 600;
const P99_MAX: Duration = Duration::from_millis(50);

const ABOUT: &str = "\
    Written by `make bench-endurance ONLY=half-load`: three peers with an instant engine on \
    loopback, jobs of 256 bytes. An open loop at half of the rate that 64 clients with one call \
    each reach before, in the same run; the time of a call counts from when it was due. All jobs \
    are drawn and, above `retention.jobs`, forgotten meanwhile.";

pub(crate) async fn measure() {
    let (minutes, short) = extent("MINUTES", MINUTES);
    let cluster = Cluster::start(instant());
    let clients = clients(&cluster, CLIENTS).await;
    load::run(&clients, Limit::Calls(20), submit).await;
    drained(&clients[0]).await;
    let syncs = syncs_per_second();
    let most = load::run(&clients, Limit::Calls(CALLS), submit).await;
    assert_eq!(most.failed(), 0, "{:?}", most.errors);
    drained(&clients[0]).await;
    let mut report = Report::new("Half load").about(ABOUT);
    let value = format!(
        "{:.0}/s, p50 {}, p99 {}",
        most.rate(),
        milliseconds(most.times.at(0.5)),
        milliseconds(most.times.at(0.99))
    );
    let figure = format!("highest rate of submits, {CLIENTS} clients, all drawn meanwhile");
    report.row(&figure, value, format!("{syncs:.0} fdatasync/s"));

    let (before, drawn_before) = (upkeep(&cluster), drawn(&clients[0]).await);
    let rate = most.rate() / 2.0;
    let called = clients.clone();
    let windows =
        open_loop(rate, minutes, |number| submit(called[number as usize % CLIENTS].clone())).await;
    let (after, drawn_after) = (upkeep(&cluster), drawn(&clients[0]).await);
    tell(&mut report, &windows, rate);
    let drawn_rate = (drawn_after - drawn_before) as f64 / (minutes * 60) as f64;
    let waiting = clients[0].queue_stats().await.expect("some peer answers").queued;
    let beside = format!("{waiting} wait at the end");
    report.row("jobs that were drawn meanwhile", format!("{drawn_rate:.0}/s"), beside);
    let value = format!("{}, and {} purges of the log", after.0 - before.0, after.1 - before.1);
    report.row("snapshots meanwhile, all three peers", value, "counted in their logs".to_owned());
    write(&report, short);
}

async fn drawn(client: &Client) -> u64 {
    ended(&client.queue_stats().await.expect("some peer answers"))
}

fn tell(report: &mut Report, windows: &[Window], rate: f64) {
    let mut whole = Window::joined(windows);
    let p99 = whole.times.at(0.99);
    let verdict = if p99 < P99_MAX { "met" } else { "not met" };
    let beside = format!(
        "{rate:.0}/s due; {} answered, {} failed; the target of p99 below {} is {verdict}",
        whole.times.count(),
        whole.failed(),
        milliseconds(P99_MAX)
    );
    let value = whole.told();
    report.row("submits at half of it", value, beside);
    for (error, count) in &whole.errors {
        report.row("submits that failed", count.to_string(), error.clone());
    }
    for (minute, window) in windows.iter().enumerate() {
        let mut window = window.clone();
        let beside = format!("{} answered, {} failed", window.times.count(), window.failed());
        report.row(&format!("minute {}", minute + 1), window.told(), beside);
    }
}
