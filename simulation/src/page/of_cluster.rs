//! The story of a run of the cluster rig.

use super::{Bar, Kind, Lane, Story, sessions};
use crate::cluster::{Event, Run};
use std::collections::BTreeMap;

pub(super) fn story(run: &Run) -> Story {
    let until_ms = run.virtual_ms;
    let mut machines: BTreeMap<u64, Vec<Bar>> = BTreeMap::new();
    let (mut faults, mut acts): (Vec<Bar>, Vec<Bar>) = (Vec::new(), Vec::new());
    for (at_ms, event) in &run.events {
        let from_ms = *at_ms;
        let open = |kind, text: String| Bar { from_ms, to_ms: until_ms, kind, text };
        match event {
            Event::Starts { machine } => {
                let bars = machines.entry(*machine).or_default();
                bars.push(open(Kind::Life, format!("machine {machine}")));
            }
            Event::Dies { machine } => {
                machines.entry(*machine).or_default().iter_mut().for_each(|bar| end(bar, from_ms));
            }
            Event::Leads { machine, term } => {
                let bars = machines.entry(*machine).or_default();
                bars.push(open(Kind::Lead, format!("leads in term {term}")));
            }
            Event::Follows { machine } => {
                let bars = machines.entry(*machine).or_default().iter_mut();
                bars.filter(|bar| bar.kind == Kind::Lead).for_each(|bar| end(bar, from_ms));
            }
            Event::Fault { text, for_ms } => {
                let (to_ms, text) = (from_ms + for_ms, text.clone());
                faults.push(Bar { from_ms, to_ms, kind: Kind::Fault, text });
            }
            Event::Act { text } => acts.push(open(Kind::Work, text.clone())),
            Event::ActEnds { text } => {
                if let Some(bar) = acts.last_mut() {
                    end(bar, from_ms);
                    bar.text.clone_from(text);
                }
            }
        }
    }
    let lane = |(machine, bars)| Lane { name: format!("machine {machine}"), bars };
    let mut lanes: Vec<Lane> = machines.into_iter().map(lane).collect();
    lanes.push(Lane { name: "operator".to_owned(), bars: acts });
    lanes.extend(sessions(&run.operations, until_ms, |session| match session {
        0..100 => format!("client {session}"),
        100..1_000 => match session % 10 {
            0 => format!("client {}", (session - 100) / 10),
            peer => format!("client {} at {peer}", (session - 100) / 10),
        },
        _ => format!("watch {}", session - 1_000),
    }));
    Story { until_ms, lanes, faults }
}

fn end(bar: &mut Bar, at_ms: u64) {
    if bar.to_ms > at_ms {
        bar.to_ms = at_ms;
    }
}
