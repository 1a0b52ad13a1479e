//! Why nobody could serve a command, as far as it can be seen from here: the arithmetic of the
//! quorum, who is silent, and what to do next.

use atelier_client::{Member, Role, Survey};

use super::contexts::ENDPOINT_DEFAULT;
use super::failure::Failure;
use super::quorum::Voters;
use super::{Context, PATIENCE_ASK};

/// Asks every peer how it is where no peer could serve the command.
pub(super) async fn explain(context: &Context, failure: Failure) -> Failure {
    if !failure.unserved {
        return failure;
    }
    // What the endpoints are wrong with was told before anybody was asked.
    let Ok(client) = context.any_client(PATIENCE_ASK) else { return failure };
    explained(failure, &client.survey().await, asks_default(context))
}

/// Where nobody answers: what to look at.
pub(super) fn where_to_look(context: &Context) -> Vec<String> {
    nobody(asks_default(context))
}

/// Whether the cluster is looked for where nobody said that there is one.
fn asks_default(context: &Context) -> bool {
    context.connection.endpoints == [ENDPOINT_DEFAULT]
}

fn nobody(asks_default: bool) -> Vec<String> {
    let others = "name other peers with --endpoints URL,… or ATELIER_ENDPOINTS".to_owned();
    let start = match asks_default {
        true => "`atelier demo` starts a cluster on this machine",
        false => "is `atelierd` running there, and its gRPC port open to this machine?",
    };
    vec![others, start.to_owned()]
}

fn explained(failure: Failure, survey: &Survey, asks_default: bool) -> Failure {
    if survey.statuses().next().is_none() {
        return failure.hints(nobody(asks_default));
    }
    if let Some(unformed) = Unformed::of(survey) {
        return failure
            .why([unformed.words()])
            .hint(unformed.next())
            .hint("`atelier doctor` says what is wrong with each peer, and what to do");
    }
    let (arithmetic, leader) = arithmetic(survey);
    let next = match leader {
        Some(leader) => format!("repeat the command; the leader is at {}", leader.address),
        None => "`atelier cluster status --stale` shows what those who answer know".to_owned(),
    };
    failure
        .why(strangers(survey))
        .why([arithmetic])
        .hint(next)
        .hint("`atelier doctor` says what is wrong with each peer, and what to do")
}

/// A cluster that has not decided anything yet: too few of its first members are started, or reach
/// one another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unformed {
    /// Who answers, and waits.
    here: Vec<String>,
    /// Who does not answer, of those that are known from here.
    missing: Vec<String>,
}

impl Unformed {
    /// `None` where nobody answers, and where somebody has ever seen a decision.
    pub(super) fn of(survey: &Survey) -> Option<Self> {
        let has_decided = survey.statuses().any(|status| status.commit_index > 0);
        if has_decided || survey.statuses().next().is_none() {
            return None;
        }
        let mut unformed = Self { here: Vec::new(), missing: Vec::new() };
        for answer in &survey.answers {
            let whose = match &answer.status {
                Ok(_) => &mut unformed.here,
                Err(_) => &mut unformed.missing,
            };
            whose.push(answer.address.clone());
        }
        // A member that cannot be dialled was not asked.
        let silent = survey.members.iter().filter(|member| survey.of(member.node).is_none());
        for member in silent {
            if !unformed.missing.contains(&member.address) {
                unformed.missing.push(member.address.clone());
            }
        }
        Some(unformed)
    }

    pub(super) fn words(&self) -> String {
        let verb = if self.here.len() == 1 { "answers" } else { "answer" };
        let here = format!("the cluster is not formed yet: {} {verb}", self.here.join(", "));
        match self.missing.as_slice() {
            [] => format!("{here}; others of its first members are not started, or not reached"),
            missing => format!("{here}; waited for: {}", missing.join(", ")),
        }
    }

    pub(super) fn next(&self) -> String {
        let start = match self.missing.as_slice() {
            [] => {
                "start the other peers that `peers` names in the configuration of this one".into()
            }
            missing => format!("start `atelierd` at {}", missing.join(" and at ")),
        };
        format!("{start}; the one with the least id forms the cluster")
    }
}

/// Endpoints that answer and belong to no cluster, or to another one.
fn strangers(survey: &Survey) -> Vec<String> {
    let is_member = |node| survey.members.iter().any(|member| member.node == node);
    let stranger = |one: &atelier_client::Answer| {
        let status = one.status.as_ref().ok()?;
        let told = match status.commit_index {
            0 => format!("{} answers and is no member yet: `atelier member add`", one.address),
            _ => format!("{} answers and is no member: was it removed?", one.address),
        };
        (!is_member(status.node)).then_some(told)
    };
    survey.answers.iter().filter_map(stranger).collect()
}

/// How many voters answer, who does not, and how many are needed; and who leads, where enough of
/// them answer for somebody to lead.
fn arithmetic(survey: &Survey) -> (String, Option<&Member>) {
    let voters = || survey.members.iter().filter(|member| member.role == Role::Voter);
    let silent: Vec<&Member> = voters().filter(|voter| survey.of(voter.node).is_none()).collect();
    let total = voters().count();
    let all = Voters { total, alive: total - silent.len() };
    let leads = |member: &&Member| all.decides() && survey.leader() == Some(member.node);
    let leader = survey.members.iter().find(leads);
    let lead = match leader {
        Some(leader) => format!("node {} leads", leader.node),
        None => "none knows a leader: an election is under way, or they do not reach one another"
            .to_owned(),
    };
    let name = |voter: &&Member| format!("node {} at {}", voter.node, voter.address);
    let names = silent.iter().map(name).collect::<Vec<_>>().join(", ");
    let (count, quorum) = (silent.len(), all.quorum());
    let words = match count {
        0 => format!("all {total} voters answer, and {lead}"),
        _ if all.decides() => {
            format!("{count} of {total} voters do not answer: {names}; of those who do {lead}")
        }
        _ => format!("{count} of {total} voters do not answer: {names}; {quorum} are needed"),
    };
    (words, leader)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::cli::failure::Exit;
    use atelier_client::{Answer, Error, Status};
    use std::collections::BTreeMap;

    fn member(node: u64) -> Member {
        Member {
            node,
            address: format!("http://peer-{node}:7861"),
            role: Role::Voter,
            leader: false,
            alive: true,
            slots: 1,
            leases: 0,
            engine: String::new(),
            model: String::new(),
            matched_index: None,
            witness: false,
            draining: false,
            labels: BTreeMap::new(),
            features: 2,
        }
    }

    fn status(node: u64, leader: Option<u64>) -> Status {
        Status {
            node,
            leader,
            term: 3,
            last_log_index: 9,
            commit_index: 9,
            applied_index: 9,
            queued: 0,
            leased: 0,
            terminal: 0,
            version: String::new(),
            state_digest: String::new(),
            members: Vec::new(),
            features: 2,
            paused: false,
            cluster: String::new(),
        }
    }

    /// Of nodes 1 to 3 these answer.
    fn told(answers: &[u64], leader: Option<u64>) -> Failure {
        let answer = |node: u64| {
            let address = format!("http://peer-{node}:7861");
            let silent = Error::Unavailable { tried: Vec::new(), leader: None };
            let status = answers.contains(&node).then(|| status(node, leader)).ok_or(silent);
            Answer { address, status }
        };
        let extra = answers.iter().copied().filter(|node| *node > 3);
        let answers = (1..=3).chain(extra).map(answer).collect();
        let members = (1..=3).map(member).collect();
        let survey = Survey { answers, members };
        explained(Failure::new(Exit::Unavailable, "no"), &survey, false)
    }

    #[test]
    fn the_arithmetic_names_who_is_silent_and_how_many_are_needed() {
        let minority = told(&[1], None);
        assert_eq!(
            minority.why,
            ["2 of 3 voters do not answer: node 2 at http://peer-2:7861, node 3 at \
              http://peer-3:7861; 2 are needed"]
        );
        assert!(minority.hints[0].contains("atelier cluster status --stale"));
        assert!(minority.hints[1].contains("atelier doctor"));
        let election = told(&[1, 2, 3], None);
        assert!(election.why[0].starts_with("all 3 voters answer, and none knows a leader"));
        let led = told(&[1, 2], Some(1));
        assert!(led.why[0].ends_with("; of those who do node 1 leads"), "{:?}", led.why);
        assert_eq!(led.hints[0], "repeat the command; the leader is at http://peer-1:7861");
        let deposed = told(&[1], Some(1));
        assert!(deposed.why[0].ends_with("; 2 are needed"), "{:?}", deposed.why);
        assert!(deposed.hints[0].contains("atelier cluster status --stale"));
        let removed = told(&[2, 3, 4], Some(2));
        assert_eq!(removed.why[0], "http://peer-4:7861 answers and is no member: was it removed?");
    }

    #[test]
    fn a_cluster_that_is_not_formed_yet_says_who_is_waited_for() {
        let survey = |endpoints: &[u64], members: &[u64]| {
            let answer = |node: &u64| {
                let silent = Error::Unavailable { tried: Vec::new(), leader: None };
                let fresh = Status { commit_index: 0, applied_index: 0, ..status(*node, None) };
                let address = format!("http://peer-{node}:7861");
                Answer { address, status: (*node == 2).then_some(fresh).ok_or(silent) }
            };
            let members = members.iter().map(|node| member(*node)).collect();
            Survey { answers: endpoints.iter().map(answer).collect(), members }
        };
        let told = |endpoints, members| {
            let failure = Failure::new(Exit::Unavailable, "no");
            explained(failure, &survey(endpoints, members), false)
        };
        let waits = "the cluster is not formed yet: http://peer-2:7861 answers; waited for: \
                     http://peer-1:7861, http://peer-3:7861";
        for members in [[].as_slice(), &[1, 2, 3]] {
            let failure = told(&[1, 2, 3], members);
            assert_eq!(failure.why, [waits]);
            assert!(failure.hints[0].starts_with("start `atelierd` at http://peer-1:7861 and at "));
        }
        let alone = told(&[2], &[]);
        assert!(alone.why[0].ends_with("are not started, or not reached"));
        assert!(alone.hints[0].contains("`peers`"), "{:?}", alone.hints);
    }

    #[test]
    fn a_demo_is_named_only_where_nobody_was() {
        let hints = |asks_default| {
            let survey = Survey { answers: Vec::new(), members: Vec::new() };
            explained(Failure::new(Exit::Unavailable, "no"), &survey, asks_default).hints.join(" ")
        };
        assert!(hints(true).contains("atelier demo"));
        assert!(!hints(false).contains("atelier demo"));
    }
}
