//! What is kept beside jobs: tenants, keys, settings, the trail.

use super::{Invariant, Violation, ensure, violation};
use crate::job::{JobId, Phase};
use crate::limits;
use crate::roster::Node;
use crate::settings::{self, SettingChange};
use crate::state::State;
use crate::trail::Author;
use imbl::OrdSet;
use std::collections::BTreeMap;

pub(super) fn check(state: &State) -> Result<(), Violation> {
    check_level(state)?;
    check_tenants(state)?;
    check_keys(state)?;
    check_settings(state)?;
    check_trail(state)?;
    let unfinished = state.jobs.iter().filter(|(_, job)| !job.phase.is_terminal());
    let timed = unfinished.filter(|(_, job)| job.submit.deadline_ms > 0);
    let deadlines: OrdSet<_> = timed.map(|(id, job)| (job.submit.deadline_ms, *id)).collect();
    ensure(state.deadlines == deadlines, Invariant::S7, || {
        format!("{} deadlines are indexed, {} exist", state.deadlines.len(), deadlines.len())
    })
}

/// Checks that a cluster at feature level 1 has nothing of a later one.
fn check_level(state: &State) -> Result<(), Violation> {
    let level = state.features.0;
    let known = limits::FEATURES_FIRST..=limits::FEATURES;
    ensure(known.contains(&level), Invariant::S6, || format!("feature level {level}"))?;
    if level >= 2 {
        return Ok(());
    }
    let tags = state.fair.tenants.values().map(|tenant| tenant.finish_tags);
    let is_plain = state.assigned == 0
        && state.fair.virtual_times.iter().all(|time| *time == 0)
        && tags.flatten().all(|tag| tag == 0)
        && state.keys.forgotten.is_empty()
        && state.settings == settings::Settings::default()
        && state.marked.0 == 0
        && state.trail.is_empty();
    ensure(is_plain, Invariant::S7, || "records of feature level 2 at level 1".to_owned())
}

fn check_tenants(state: &State) -> Result<(), Violation> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for job in state.jobs.values() {
        let (queued, leased) = match job.phase {
            Phase::Queued => (1, 0),
            Phase::Leased(_) => (0, 1),
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => continue,
        };
        let count = counts.entry(&job.submit.tenant).or_default();
        *count = (count.0 + queued, count.1 + leased);
        let tags = state.fair.tenants.get(&job.submit.tenant).map(|it| it.finish_tags);
        let finish = tags.map(|tags| tags[usize::from(job.submit.priority)]);
        ensure(finish >= Some(job.tag), Invariant::S9, || {
            format!("job {} starts at {}, its tenant ends at {finish:?}", job.id(), job.tag)
        })?;
    }
    let mut idle = 0;
    for (name, tenant) in state.fair.tenants.iter() {
        let counted = counts.remove(name.as_ref()).unwrap_or_default();
        ensure(counted == (tenant.queued, tenant.leased), Invariant::S7, || {
            let (queued, leased) = (tenant.queued, tenant.leased);
            format!("tenant {name} has {counted:?} jobs, {queued} + {leased} are counted")
        })?;
        let has_reason = !tenant.is_idle() || tenant.finish_tags.iter().any(|tag| *tag > 0);
        ensure(has_reason, Invariant::S9, || format!("tenant {name} is kept without a reason"))?;
        idle += usize::from(tenant.is_idle());
    }
    ensure(counts.is_empty(), Invariant::S7, || format!("tenants {counts:?} are not counted"))?;
    // More than the bound were accepted at feature level 1 at most, and none of them is idle.
    let fits = state.fair.tenants.len() <= limits::TENANTS_MAX || idle == 0;
    ensure(fits, Invariant::S6, || format!("{} tenants", state.fair.tenants.len()))
}

fn check_keys(state: &State) -> Result<(), Violation> {
    let keys = &state.keys;
    ensure(keys.forgotten.len() <= limits::KEYS_MAX, Invariant::S6, || {
        format!("{} keys of forgotten jobs", keys.forgotten.len())
    })?;
    for (key, record) in keys.forgotten.iter() {
        let is_sound = record.key == *key
            && record.job > JobId(0)
            && key.tenant.len() <= limits::NAME_BYTES_MAX
            && (1..=limits::NAME_BYTES_MAX).contains(&key.key.len());
        ensure(is_sound, Invariant::S6, || format!("key {key:?} has the record {record:?}"))?;
        ensure(!keys.owners.contains_key(key), Invariant::S2, || {
            format!("key {key:?} is of a job that is remembered, and of one that is forgotten")
        })?;
        let is_indexed = keys.oldest.contains(&(record.finished_ms, key.clone()));
        ensure(is_indexed, Invariant::S7, || format!("key {key:?} is not found by its age"))?;
    }
    ensure(keys.oldest.len() == keys.forgotten.len(), Invariant::S7, || {
        format!("{} keys are indexed, {} exist", keys.oldest.len(), keys.forgotten.len())
    })
}

fn check_settings(state: &State) -> Result<(), Violation> {
    let version = state.settings.version();
    let mut weights = 0;
    for (key, value, set) in state.settings.stored() {
        let change = SettingChange { key: key.to_string(), value: Some(value) };
        settings::check(&change).map_err(|detail| violation(Invariant::S6, detail))?;
        let default = settings::field(key).map(|field| field.default);
        let is_needed = default != Some(value) && (1..=version).contains(&set);
        ensure(is_needed, Invariant::S7, || format!("{key}={value} is kept since {set}"))?;
        weights += usize::from(key.starts_with(settings::WEIGHT_PREFIX));
    }
    ensure(weights <= limits::WEIGHTS_MAX, Invariant::S6, || format!("{weights} weights"))?;
    let history: Vec<_> = state.settings_history().collect();
    ensure(history.len() <= limits::SETTINGS_HISTORY_MAX, Invariant::S6, || {
        format!("{} versions of the settings", history.len())
    })?;
    let first = (version + 1).saturating_sub(u64::try_from(history.len()).expect("few"));
    let is_whole = history.iter().zip(first..).all(|(record, number)| record.version == number);
    ensure(is_whole, Invariant::S7, || {
        format!("the history of the settings does not lead to version {version}")
    })?;
    history.iter().try_for_each(|record| check_author(&record.author))
}

fn check_trail(state: &State) -> Result<(), Violation> {
    ensure(state.trail.len() <= limits::TRAIL_MAX, Invariant::S6, || {
        format!("{} acts", state.trail.len())
    })?;
    let indexes: Vec<_> = state.trail().map(|record| record.index).collect();
    let is_past = indexes.is_sorted() && indexes.last().is_none_or(|it| *it <= state.applied);
    ensure(is_past, Invariant::S7, || "acts do not follow the log".to_owned())?;
    ensure(state.marked <= state.applied, Invariant::S7, || {
        format!("marked at {}, which is to come", state.marked.0)
    })?;
    for record in state.trail() {
        let fits = record.act.len() <= limits::TEXT_BYTES_MAX;
        ensure(fits, Invariant::S6, || format!("an act of {} bytes", record.act.len()))?;
        check_author(&record.author)?;
    }
    Ok(())
}

fn check_author(author: &Author) -> Result<(), Violation> {
    let fits =
        author.who.len() <= limits::NAME_BYTES_MAX && author.why.len() <= limits::TEXT_BYTES_MAX;
    ensure(fits, Invariant::S6, || "an author of too many bytes".to_owned())
}

pub(super) fn check_node(node: &Node, level: u32) -> Result<(), String> {
    let lengths = [node.address.len(), node.class.len(), node.model.len()];
    if lengths.iter().any(|bytes| *bytes > limits::TEXT_BYTES_MAX) || node.address.is_empty() {
        return Err(format!("texts of {lengths:?} bytes"));
    }
    if node.slots > limits::SLOTS_MAX {
        return Err(format!("{} slots", node.slots));
    }
    if node.incarnation == 0 && node.slots > 0 {
        return Err(format!("never registered, and has {} slots", node.slots));
    }
    if node.witness && node.slots > 0 {
        return Err(format!("a witness, and has {} slots", node.slots));
    }
    let texts = node.labels.iter().flat_map(|(label, value)| [label.len(), value.len()]);
    let is_labelled = node.labels.len() <= limits::LABELS_MAX
        && texts.max().unwrap_or(0) <= limits::NAME_BYTES_MAX;
    if !is_labelled {
        return Err(format!("{} labels, or long ones", node.labels.len()));
    }
    if level < 2 && (node.witness || node.draining || !node.labels.is_empty()) {
        return Err("marks of feature level 2 at level 1".to_owned());
    }
    Ok(())
}
