//! A history for people: a line a record, and the verdict of a run.

use crate::checkers::Violation;
use crate::core::Run;
use crate::history::{Answered, Asked, Fact, Record};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Records that a counter-example shows.
const SHOWN_MAX: usize = 20;

/// Writes a record as one line: when, who, what.
pub fn line(record: &Record) -> String {
    let (who, what) = tell(&record.fact);
    let (seconds, rest) = (record.at_ms / 1000, record.at_ms % 1000);
    format!("{seconds:>5}.{rest:03}  {who:<8}  {what}")
}

/// Writes the end of a history that a violation is about: the last records that name one of its
/// jobs, and what went wrong meanwhile.
pub fn counter_example(history: &[Record], violation: &Violation) -> String {
    let upto = &history[..history.len().min(violation.record + 1)];
    let accused = upto.last().map_or(Vec::new(), |record| record.fact.jobs());
    let concerns = |record: &&Record| {
        let jobs = record.fact.jobs();
        let names_one = jobs.iter().any(|job| accused.contains(job));
        accused.is_empty() || names_one || matches!(record.fact, Fact::Fault { .. } | Fact::Healed)
    };
    let mut shown: Vec<_> = upto.iter().rev().filter(concerns).take(SHOWN_MAX).collect();
    shown.reverse();
    let mut text = String::new();
    for record in shown {
        writeln!(text, "{}", line(record)).expect("a text grows");
    }
    text
}

/// Counts what happened, by kind: a map of which paths the runs have taken.
pub fn count(run: &Run, counts: &mut BTreeMap<String, u64>) {
    for record in &run.history {
        let kind = match &record.fact {
            Fact::Applied { command, reply, .. } => {
                format!("{} {}", verb(command), outcome(reply))
            }
            Fact::Fault { kind, .. } => format!("fault {}", kind.name()),
            Fact::Ended { how, .. } => format!("draw {how}"),
            Fact::LeaseLost { .. } => "lease lost by restart".to_owned(),
            Fact::Final { phase, .. } => format!("ends {phase}"),
            _ => continue,
        };
        *counts.entry(kind).or_insert(0) += 1;
    }
}

fn tell(fact: &Fact) -> (String, String) {
    let node = |node: &u64| format!("node {node}");
    let client = |client: &u32| format!("client {client}");
    match fact {
        Fact::Applied { index, command, reply } => {
            ("log".to_owned(), format!("{index}: {} → {}", asked(command), answered(reply)))
        }
        Fact::LeaseLost { job, token } => ("log".to_owned(), format!("j{job} loses lease {token}")),
        Fact::Forgotten { job, phase } => ("log".to_owned(), format!("j{job} {phase}, forgotten")),
        Fact::Told { client: who, command, reply } => {
            (client(who), format!("told: {} → {}", asked(command), answered(reply)))
        }
        Fact::Read { client: who, node, job, phase, artifacts } => {
            let phase = phase.as_deref().unwrap_or("unknown");
            (client(who), format!("reads at node {node}: j{job} {phase} {}", short(artifacts)))
        }
        Fact::Began { node: who, incarnation, job, token } => {
            (node(who), format!("begins j{job} under {token} (process {incarnation})"))
        }
        Fact::Ended { node: who, job, token, how } => {
            (node(who), format!("ends j{job} under {token}: {how}"))
        }
        Fact::Started { node: who, incarnation } => (node(who), format!("starts as {incarnation}")),
        Fact::Died { node: who } => (node(who), "dies".to_owned()),
        Fact::Leads { term } => ("leader".to_owned(), format!("term {term} begins")),
        Fact::Fault { kind, for_ms } => {
            let who = kind.node().map_or(String::new(), |node| format!(" of node {node}"));
            ("nemesis".to_owned(), format!("{}{who} for {for_ms} ms", kind.name()))
        }
        Fact::Healed => ("nemesis".to_owned(), "everything is healed".to_owned()),
        Fact::Order { restored, jobs, delayed } => {
            let when = if *restored { "restored" } else { "before the snapshot" };
            ("queue".to_owned(), format!("{when}: {jobs:?}, in back-off {delayed:?}"))
        }
        Fact::Probed { job } => ("nemesis".to_owned(), format!("submits j{job}, fresh")),
        Fact::Final { job, phase, token, artifacts } => {
            let text = format!("j{job} {phase}, last token {token} {}", short(artifacts));
            ("end".to_owned(), text)
        }
        Fact::Over => ("end".to_owned(), "the run is over".to_owned()),
    }
}

fn asked(command: &Asked) -> String {
    let verb = verb(command);
    match command {
        Asked::Submit { job, key, .. } => {
            let key = key.as_ref().map_or(String::new(), |key| format!(" with {key}"));
            format!("{verb} j{job}{key}")
        }
        Asked::Assign { job, node, incarnation } => {
            format!("{verb} j{job} to node {node} (process {incarnation})")
        }
        Asked::Complete { job, token, artifacts } => {
            format!("{verb} j{job} under {token} {}", short(artifacts))
        }
        Asked::Fail { job, token, permanent } => {
            let how = if *permanent { " for good" } else { "" };
            format!("{verb} j{job} under {token}{how}")
        }
        Asked::Revoke { job, token } => format!("{verb} j{job} under {token}"),
        Asked::Cancel { job } => format!("{verb} j{job}"),
        Asked::Forget { jobs } => format!("{verb} {jobs:?}"),
        Asked::Register { node, incarnation, slots } => {
            format!("{verb} node {node} (process {incarnation}) with {slots} slots")
        }
        Asked::Release { jobs } => format!("{verb} {jobs:?}"),
        Asked::Raise { level } => format!("{verb} the feature level to {level}"),
        Asked::Set { changes } => format!("{verb} {}", changes.join(", ")),
        Asked::Other(text) => text.clone(),
    }
}

fn answered(reply: &Answered) -> String {
    match reply {
        Answered::Submitted { job, duplicate: false } => format!("accepted as j{job}"),
        Answered::Submitted { job, duplicate: true } => format!("is j{job} already"),
        Answered::Assigned { token } => format!("token {token}"),
        Answered::Done | Answered::Refused(_) => outcome(reply),
    }
}

fn verb(command: &Asked) -> &'static str {
    match command {
        Asked::Submit { .. } => "submit",
        Asked::Assign { .. } => "assign",
        Asked::Complete { .. } => "complete",
        Asked::Fail { .. } => "fail",
        Asked::Revoke { .. } => "revoke",
        Asked::Cancel { .. } => "cancel",
        Asked::Forget { .. } => "forget",
        Asked::Register { .. } => "register",
        Asked::Release { .. } => "release",
        Asked::Raise { .. } => "raise",
        Asked::Set { .. } => "set",
        Asked::Other(_) => "other",
    }
}

fn outcome(reply: &Answered) -> String {
    match reply {
        Answered::Submitted { duplicate: false, .. } => "accepted".to_owned(),
        Answered::Submitted { duplicate: true, .. } => "repeated".to_owned(),
        Answered::Assigned { .. } => "granted".to_owned(),
        Answered::Done => "done".to_owned(),
        Answered::Refused(why) => why.clone(),
    }
}

fn short(digests: &[String]) -> String {
    let heads = digests.iter().map(|digest| digest.get(..8).unwrap_or(digest));
    heads.collect::<Vec<_>>().join(" ")
}
