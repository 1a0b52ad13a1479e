//! The story of a run of the core rig.

use super::{Bar, Kind, Lane, Story, sessions};
use crate::core::Run;
use crate::core::sessions as named;
use crate::history::Fact;
use std::collections::BTreeMap;

pub(super) fn story(run: &Run) -> Story {
    let until_ms = run.virtual_ms;
    let mut lives: BTreeMap<u64, Vec<Bar>> = BTreeMap::new();
    let mut draws: BTreeMap<u64, Vec<Bar>> = BTreeMap::new();
    let (mut reigns, mut faults): (Vec<Bar>, Vec<Bar>) = (Vec::new(), Vec::new());
    for record in &run.history {
        let from_ms = record.at_ms;
        let open = |kind, text| Bar { from_ms, to_ms: until_ms, kind, text };
        match &record.fact {
            Fact::Started { node, incarnation } => {
                let text = format!("process {incarnation} of node {node}");
                lives.entry(*node).or_default().push(open(Kind::Life, text));
            }
            Fact::Died { node } => end(lives.get_mut(node), from_ms),
            Fact::Leads { term } => {
                end(Some(&mut reigns), from_ms);
                reigns.push(open(Kind::Lead, format!("term {term}")));
            }
            Fact::Began { node, job, token, .. } => {
                let text = format!("draws job {job} under {token}");
                draws.entry(*node).or_default().push(open(Kind::Work, text));
            }
            Fact::Ended { node, job, token, how } => {
                let begun = format!("draws job {job} under {token}");
                let bars = draws.entry(*node).or_default().iter_mut();
                if let Some(bar) = bars.rev().find(|bar| bar.text == begun) {
                    bar.to_ms = from_ms;
                    bar.text = format!("{begun}: {how}");
                }
            }
            Fact::Fault { kind, for_ms } => {
                let who = kind.node().map_or(String::new(), |node| format!(" of node {node}"));
                let text = format!("{}{who}", kind.name());
                faults.push(Bar { from_ms, to_ms: from_ms + for_ms, kind: Kind::Fault, text });
            }
            _ => {}
        }
    }
    let mut lanes = vec![Lane { name: "leader".to_owned(), bars: reigns }];
    for (node, mut bars) in lives {
        bars.extend(draws.remove(&node).unwrap_or_default());
        lanes.push(Lane { name: format!("node {node}"), bars });
    }
    lanes.extend(sessions(&run.operations, until_ms, named));
    Story { until_ms, lanes, faults }
}

fn end(bars: Option<&mut Vec<Bar>>, at_ms: u64) {
    if let Some(bar) = bars.and_then(|bars| bars.last_mut()) {
        bar.to_ms = bar.to_ms.min(at_ms);
    }
}
