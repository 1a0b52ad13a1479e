//! The arithmetic of a change of members. Pure.

use atelier_client::{Member, NodeId, Role};

/// Those who vote, and how many of them are alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voters {
    pub(super) total: usize,
    pub(super) alive: usize,
}

impl Voters {
    fn of(members: &[Member]) -> Self {
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
    Remove,
}

impl ChangeKind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Promote => "promote",
            Self::Remove => "remove",
        }
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
}

impl Change {
    /// A learner more: it has no vote.
    pub(super) fn add(members: &[Member], address: &str) -> Self {
        let before = Voters::of(members);
        let address = address.to_owned();
        Self { kind: ChangeKind::Add, node: None, address, before, after: before }
    }

    /// A learner becomes a voter; to a voter nothing happens.
    pub(super) fn promote(members: &[Member], member: &Member) -> Self {
        let (before, mut after) = (Voters::of(members), Voters::of(members));
        if member.role == Role::Learner {
            after.total += 1;
            after.alive += usize::from(member.alive);
        }
        Self::of(ChangeKind::Promote, member, before, after)
    }

    /// A member leaves.
    pub(super) fn remove(members: &[Member], member: &Member) -> Self {
        let (before, mut after) = (Voters::of(members), Voters::of(members));
        if member.role == Role::Voter {
            after.total -= 1;
            after.alive -= usize::from(member.alive);
        }
        Self::of(ChangeKind::Remove, member, before, after)
    }

    fn of(kind: ChangeKind, member: &Member, before: Voters, after: Voters) -> Self {
        Self { kind, node: Some(member.node), address: member.address.clone(), before, after }
    }

    /// Whether a cluster that decides now would decide no more.
    pub(super) const fn loses_quorum(&self) -> bool {
        !self.after.decides()
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
        text
    }
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
