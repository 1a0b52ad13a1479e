//! The arithmetic of a change of members. Pure.

use std::collections::BTreeMap;

use atelier_client::{Member, NodeId, Role};

/// Those who vote, and how many of them are alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voters {
    pub(super) total: usize,
    pub(super) alive: usize,
}

impl Voters {
    pub(super) fn of(members: &[Member]) -> Self {
        let voters = members.iter().filter(|member| member.role == Role::Voter);
        let alive = voters.clone().filter(|member| member.alive).count();
        Self { total: voters.count(), alive }
    }

    /// How many must agree.
    pub(super) const fn quorum(self) -> usize {
        self.total / 2 + 1
    }

    /// How many may fail before nothing can be decided.
    pub(super) const fn tolerates(self) -> usize {
        self.total.saturating_sub(self.quorum())
    }

    /// Whether those alive can decide.
    pub(super) const fn decides(self) -> bool {
        self.total > 0 && self.alive >= self.quorum()
    }
}

/// What is done to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Add,
    Promote,
    Demote,
    Remove,
    Replace,
}

impl ChangeKind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Remove => "remove",
            Self::Replace => "replace",
        }
    }

    /// Whether it is asked to be typed out: what cannot be undone, or takes a vote away.
    pub(super) const fn is_grave(self) -> bool {
        matches!(self, Self::Demote | Self::Remove | Self::Replace)
    }
}

/// A change, with what it does to the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) node: Option<NodeId>,
    pub(super) address: String,
    pub(super) before: Voters,
    pub(super) after: Voters,
    /// What is allowed and should be known.
    pub(super) warnings: Vec<String>,
}

impl Change {
    /// A learner more: it has no vote.
    pub(super) fn add(members: &[Member], address: &str) -> Self {
        Self::of(ChangeKind::Add, None, address, members, members)
    }

    /// A learner becomes a voter; to a voter nothing happens.
    pub(super) fn promote(members: &[Member], member: &Member) -> Self {
        let after = with_role(members, member.node, Role::Voter);
        Self::of(ChangeKind::Promote, Some(member.node), &member.address, members, &after)
    }

    /// A voter becomes a learner; to a learner nothing happens.
    pub(super) fn demote(members: &[Member], member: &Member) -> Self {
        let after = with_role(members, member.node, Role::Learner);
        Self::of(ChangeKind::Demote, Some(member.node), &member.address, members, &after)
    }

    /// A member leaves.
    pub(super) fn remove(members: &[Member], member: &Member) -> Self {
        let after = without(members, member.node);
        Self::of(ChangeKind::Remove, Some(member.node), &member.address, members, &after)
    }

    /// A member leaves as another one, who has caught up by then, comes.
    pub(super) fn replace(members: &[Member], member: &Member, comes: Option<&Member>) -> Self {
        let mut after = without(members, member.node);
        let node = comes.map_or(0, |comes| comes.node);
        after.retain(|other| other.node != node);
        let newcomer = comes.unwrap_or(member).clone();
        after.push(Member { node, role: member.role, alive: true, ..newcomer });
        Self::of(ChangeKind::Replace, Some(member.node), &member.address, members, &after)
    }

    fn of(
        kind: ChangeKind,
        node: Option<NodeId>,
        address: &str,
        before: &[Member],
        after: &[Member],
    ) -> Self {
        let address = address.to_owned();
        let warnings = zone_warning(after).into_iter().collect();
        let (before, after) = (Voters::of(before), Voters::of(after));
        Self { kind, node, address, before, after, warnings }
    }

    /// Whether a cluster that decides now would decide no more.
    pub(super) const fn loses_quorum(&self) -> bool {
        !self.after.decides()
    }

    /// Whether there would be two voters where there were not: one failure stops both.
    pub(super) const fn makes_two_voters(&self) -> bool {
        self.after.total == 2 && self.before.total != 2
    }

    /// The change in words and numbers.
    pub(super) fn describe(&self) -> String {
        let Self { before, after, .. } = self;
        let member = self.node.map_or_else(String::new, |node| format!(" {node}"));
        let row = |name: &str, before: usize, after: usize, unit: &str| {
            format!("\n  {name:<10} {before} → {after}{unit}")
        };
        let mut text = format!("{} member{member} at {}", self.kind.word(), self.address);
        text += &row("voters", before.total, after.total, "");
        text += &row("quorum", before.quorum(), after.quorum(), "");
        text += &row("alive", before.alive, after.alive, " of the voters");
        text += &row("tolerates", before.tolerates(), after.tolerates(), " failures");
        for warning in &self.warnings {
            text += &format!("\n  warning: {warning}");
        }
        text
    }
}

fn with_role(members: &[Member], node: NodeId, role: Role) -> Vec<Member> {
    let changed = |member: &Member| match member.node == node {
        true => Member { role, ..member.clone() },
        false => member.clone(),
    };
    members.iter().map(changed).collect()
}

fn without(members: &[Member], node: NodeId) -> Vec<Member> {
    members.iter().filter(|member| member.node != node).cloned().collect()
}

/// The zone whose loss would take the quorum along, where there is more than one zone.
pub(super) fn zone_warning(members: &[Member]) -> Option<String> {
    let voters: Vec<&Member> = members.iter().filter(|one| one.role == Role::Voter).collect();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for zone in voters.iter().filter_map(|voter| voter.labels.get("zone")) {
        *zones.entry(zone).or_default() += 1;
    }
    let (zone, count) = zones.iter().max_by_key(|(_, count)| **count)?;
    let total = voters.len();
    (total > 1 && count * 2 > total).then(|| {
        format!(
            "{count} of {total} voters are in zone {zone}: without it the others decide nothing"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<Member> {
        let member = |(at, letter): (usize, char)| Member {
            node: at as u64 + 1,
            address: format!("http://peer-{}:7861", at + 1),
            role: if letter.eq_ignore_ascii_case(&'v') { Role::Voter } else { Role::Learner },
            leader: at == 0,
            alive: letter.is_ascii_uppercase(),
            slots: 1,
            leases: 0,
            engine: String::new(),
            model: String::new(),
            matched_index: None,
            witness: false,
            draining: false,
            labels: BTreeMap::new(),
            features: 2,
        };
        text.chars().enumerate().map(member).collect()
    }

    /// Members as letters: V voter, L learner; lower case when dead.
    fn check(text: &str, kind: ChangeKind, node: usize, loses_quorum: bool) {
        let members = members(text);
        let change = match kind {
            ChangeKind::Add => Change::add(&members, "http://new:7861"),
            ChangeKind::Promote => Change::promote(&members, &members[node - 1]),
            ChangeKind::Remove => Change::remove(&members, &members[node - 1]),
            ChangeKind::Demote => Change::demote(&members, &members[node - 1]),
            ChangeKind::Replace => Change::replace(&members, &members[node - 1], None),
        };
        assert_eq!(change.loses_quorum(), loses_quorum, "{text}: {}", change.describe());
    }

    #[test]
    fn a_quorum_must_remain() {
        check("VVV", ChangeKind::Remove, 3, false);
        check("VVv", ChangeKind::Remove, 3, false);
        check("VVv", ChangeKind::Remove, 2, true);
        check("VV", ChangeKind::Remove, 2, false);
        check("Vv", ChangeKind::Remove, 1, true);
        check("V", ChangeKind::Remove, 1, true);
        check("VL", ChangeKind::Remove, 2, false);
        check("VVvL", ChangeKind::Promote, 4, false);
        check("VVvl", ChangeKind::Promote, 4, true);
        check("Vl", ChangeKind::Promote, 2, true);
        check("VVV", ChangeKind::Promote, 2, false);
        check("VVv", ChangeKind::Add, 0, false);
        check("VVv", ChangeKind::Demote, 3, false);
        check("VVv", ChangeKind::Demote, 1, true);
        check("VVL", ChangeKind::Demote, 3, false);
        check("VVv", ChangeKind::Replace, 3, false);
        check("VVv", ChangeKind::Replace, 2, false);
        check("Vvv", ChangeKind::Replace, 3, false);
    }

    #[test]
    fn two_voters_are_told_apart_from_what_was_there_before() {
        let three = members("VVV");
        assert!(Change::remove(&three, &three[2]).makes_two_voters());
        assert!(!Change::replace(&three, &three[2], None).makes_two_voters());
        let learner = members("VL");
        assert!(Change::promote(&learner, &learner[1]).makes_two_voters());
        let two = members("VVL");
        assert!(!Change::remove(&two, &two[2]).makes_two_voters());
    }

    #[test]
    fn a_zone_with_a_majority_is_named() {
        let mut three = members("VVV");
        assert_eq!(zone_warning(&three), None);
        for (member, zone) in three.iter_mut().zip(["a", "b", "c"]) {
            member.labels.insert("zone".into(), zone.into());
        }
        assert_eq!(zone_warning(&three), None);
        three[1].labels.insert("zone".into(), "a".into());
        let told = zone_warning(&three).unwrap();
        assert!(told.starts_with("2 of 3 voters are in zone a:"), "{told}");
        assert_eq!(Change::add(&three, "http://new:1").warnings, [told]);
    }

    #[test]
    fn the_arithmetic_is_told() {
        let members = members("VVV");
        let told = Change::remove(&members, &members[2]).describe();
        assert_eq!(
            told,
            "remove member 3 at http://peer-3:7861\n  voters     3 → 2\n  quorum     2 → 2\n  \
             alive      3 → 2 of the voters\n  tolerates  1 → 0 failures"
        );
    }
}
