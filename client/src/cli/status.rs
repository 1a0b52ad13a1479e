//! `atelier status`: one row a peer, from the whole cluster.

use atelier_client::{NodeId, Status, Survey};

use super::explain::{Unformed, where_to_look};
use super::failure::{Exit, Failure};
use super::json::{Body, Counts, Document, MemberView, PeerView, StatusView, VotersView};
use super::output::{dash, note};
use super::quorum::{Voters, zone_warning};
use super::{Context, PATIENCE_ASK};

/// `stale` takes what the peers say without a leader for good.
pub(super) async fn run(context: &Context, stale: bool) -> Result<Exit, Failure> {
    let survey = context.any_client(PATIENCE_ASK)?.survey().await;
    if survey.statuses().next().is_none() {
        return Err(nobody(context, &survey));
    }
    let view = view(&survey);
    let exit = match exit(&view) {
        Exit::Unavailable if stale => Exit::Ok,
        exit => exit,
    };
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Status(view)))?;
    } else {
        let silent: Vec<String> = view.peers.iter().filter_map(silence).collect();
        print(context, &view, &silent)?;
    }
    Ok(exit)
}

/// Nobody answered: where was looked, and where else to look.
pub(super) fn nobody(context: &Context, survey: &Survey) -> Failure {
    let why = survey.answers.iter().filter_map(|one| one.status.as_ref().err());
    Failure::new(Exit::Unavailable, "no peer answers")
        .why(why.map(ToString::to_string).collect::<Vec<_>>())
        .hints(where_to_look(context))
}

/// The cluster as those who answered see it.
pub(super) fn view(survey: &Survey) -> StatusView {
    StatusView {
        leader: survey.leader(),
        consistent: survey.consistent(),
        jobs: counts(survey),
        peers: peers(survey),
        cluster: newest(survey).map(|one| one.cluster.clone()).filter(|name| !name.is_empty()),
        features: newest(survey).map(|one| one.features),
        paused: newest(survey).map(|one| one.paused),
        voters: Voters::of(&survey.members).into(),
        warnings: zone_warning(&survey.members)
            .into_iter()
            .chain(Unformed::of(survey).map(|unformed| unformed.words()))
            .collect(),
    }
}

/// Says to a script whether somebody leads and everybody answered.
pub(super) fn exit(view: &StatusView) -> Exit {
    if view.leader.is_none() {
        return Exit::Unavailable;
    }
    if view.peers.iter().all(|peer| peer.answered) { Exit::Ok } else { Exit::Partial }
}

/// Every member, then every address that answered and is none.
fn peers(survey: &Survey) -> Vec<PeerView> {
    let mut peers: Vec<PeerView> = survey
        .members
        .iter()
        .map(|member| {
            let status = survey.of(member.node);
            let why = match status {
                Some(_) => None,
                None => Some(why(survey, &member.address)),
            };
            PeerView::new(MemberView::from(member), status, why)
        })
        .collect();
    let is_member = |node: NodeId| survey.members.iter().any(|member| member.node == node);
    for status in survey.answers.iter().filter_map(|one| Some((one, one.status.as_ref().ok()?))) {
        let (answer, status) = status;
        if !is_member(status.node) {
            let view = MemberView::stranger(&answer.address, Some(status.node));
            let why = Some("it answers, and is no member".to_owned());
            peers.push(PeerView::new(view, Some(status), why));
        }
    }
    for answer in &survey.answers {
        let known = survey.members.iter().any(|member| member.address == answer.address);
        if let (Err(error), false) = (&answer.status, known) {
            let view = MemberView::stranger(&answer.address, None);
            peers.push(PeerView::new(view, None, Some(error.to_string())));
        }
    }
    peers
}

fn why(survey: &Survey, address: &str) -> String {
    let answer = survey.answers.iter().find(|answer| answer.address == address);
    match answer.map(|answer| &answer.status) {
        Some(Err(error)) => error.to_string(),
        _ => format!("{address} was not asked: it cannot be dialled"),
    }
}

pub(super) fn silence(peer: &PeerView) -> Option<String> {
    if peer.answered {
        return None;
    }
    Some(peer.why.clone().unwrap_or_else(|| "it does not answer".to_owned()))
}

fn newest(survey: &Survey) -> Option<&Status> {
    survey.statuses().max_by_key(|status| (status.term, status.applied_index))
}

fn counts(survey: &Survey) -> Option<Counts> {
    let newest = newest(survey)?;
    let (queued, leased, terminal) = (newest.queued, newest.leased, newest.terminal);
    Some(Counts { queued, leased, terminal })
}

fn print(context: &Context, view: &StatusView, silent: &[String]) -> Result<(), Failure> {
    let header = [
        "id", "address", "role", "leader", "alive", "term", "applied", "engine", "model", "slots",
        "leases", "state", "labels",
    ];
    let rows: Vec<_> = view.peers.iter().map(row).collect();
    context.output.table(&header, &rows)?;
    if let Some(Counts { queued, leased, terminal }) = &view.jobs {
        note(&format!("jobs: {queued} queued, {leased} being drawn, {terminal} over"));
    }
    note(&arithmetic(view));
    for warning in &view.warnings {
        note(&format!("warning: {warning}"));
    }
    if view.paused == Some(true) {
        note("the queue is paused: no job is given to anybody; `atelier queue resume`");
    }
    for why in silent {
        note(&format!("silent: {why}"));
    }
    if view.leader.is_none() {
        note("no peer knows a leader: an election is under way, or there is no quorum");
    }
    if view.consistent == Some(false) {
        note("DIVERGED: peers at the same applied index have different states; keep all disks");
    }
    Ok(())
}

pub(super) fn arithmetic(view: &StatusView) -> String {
    let VotersView { voters, alive, quorum, tolerates } = view.voters;
    let name = view.cluster.as_ref().map(|name| format!("cluster {name}: ")).unwrap_or_default();
    let features = view.features.filter(|level| *level > 0);
    let features = features.map(|level| format!("; feature level {level}")).unwrap_or_default();
    let left = tolerates.saturating_sub(voters - alive);
    format!(
        "{name}{alive} of {voters} voters alive, {quorum} must agree, {left} more may fail{features}"
    )
}

fn row(peer: &PeerView) -> Vec<String> {
    let PeerView { member, .. } = peer;
    let mut row = member.cells();
    // After alive, before engine.
    row.insert(5, dash(peer.applied_index));
    row.insert(5, dash(peer.term));
    row
}
