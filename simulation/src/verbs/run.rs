//! Many seeds, until one shows a violation.

use super::{Batch, bar, failed};
use atelier_simulation::checkers::linear::Tally;
use atelier_simulation::coverage;
use atelier_simulation::scenario::{Played, Scenario, World};
use atelier_simulation::timeline::counter_example;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What all runs together have done.
#[derive(Default)]
struct Total {
    seeds: u64,
    virtual_ms: u64,
    counts: BTreeMap<String, u64>,
    tally: Tally,
    core: [u64; 2],
    cluster: [u64; 3],
}

pub(crate) fn run(batch: &Batch, minutes: Option<f64>) -> anyhow::Result<ExitCode> {
    let (world, seeds) = (batch.world(), batch.range());
    println!("seeds from {}; one again: {}", seeds.start, world.command("<seed>"));
    let watch = Instant::now();
    let end = minutes.map(|minutes| watch + Duration::from_secs_f64(60.0 * minutes));
    let last = if end.is_some() { u64::MAX } else { seeds.end };
    let bar = if end.is_some() { bar(0) } else { bar(seeds.end - seeds.start) };
    let mut total = Total::default();
    for seed in seeds.start..last {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let played = Scenario::of(world, seed).play();
        if let Some(broken) = played.broken() {
            bar.finish_and_clear();
            println!("seed {seed}: {broken}");
            tell_core(&played);
            return Ok(failed(world, seed));
        }
        total.add(&played);
        bar.inc(1);
    }
    bar.finish_and_clear();
    total.tell(watch.elapsed().as_secs_f64());
    let last = seeds.start + total.seeds.saturating_sub(1);
    println!(
        "seeds {} to {last}: no violation; one again: {}",
        seeds.start,
        world.command("<seed>")
    );
    Ok(ExitCode::SUCCESS)
}

/// What led to a violation, where the rig has a history to tell it by.
pub(super) fn tell_core(played: &Played) {
    if let Played::Core(run) = played
        && let Some(violation) = &run.violation
    {
        println!("\nwhat led to it:\n{}", counter_example(&run.history, violation));
    }
}

impl Total {
    fn add(&mut self, played: &Played) {
        self.seeds += 1;
        coverage::count(played, &mut self.counts);
        match played {
            Played::Core(run) => {
                self.tally = self.tally + run.tally;
                self.virtual_ms += run.virtual_ms;
                let [events, records] = self.core;
                self.core = [events + run.events, records + run.history.len() as u64];
            }
            Played::Cluster(run) | Played::Wire(run) | Played::Process(run) => {
                self.tally = self.tally + run.tally;
                self.virtual_ms += run.virtual_ms;
                let [accepted, entries, calls] = self.cluster;
                self.cluster = [accepted + run.accepted, entries + run.entries, calls + run.calls];
            }
            Played::Panicked(_) => {}
        }
    }

    fn tell(&self, wall: f64) {
        for (kind, count) in &self.counts {
            println!("{count:>9}  {kind}");
        }
        println!("{}", self.tally);
        match (self.core, self.cluster) {
            ([0, _], [accepted, entries, calls]) => {
                println!("{accepted} jobs accepted, {entries} entries, {calls} calls");
            }
            ([events, records], _) => println!("{events} events, {records} records"),
        }
        let (seconds, minute) = (self.virtual_ms as f64 / 1_000.0, self.seeds as f64 * 60.0 / wall);
        println!(
            "{:.1} virtual hours in {wall:.1} s, a ratio of {:.0}; {minute:.0} seeds a minute",
            seconds / 3_600.0,
            seconds / wall
        );
    }
}

/// The rig's word in a file name.
pub(super) fn word(world: World) -> &'static str {
    world.name()
}
