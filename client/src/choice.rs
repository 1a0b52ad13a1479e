//! Whom to ask first. No IO, no clock: what is known of each endpoint comes in, its place comes out.

use std::cmp::Reverse;

/// What a call wants of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It goes through the log: the leader saves a hop.
    Leader,
    /// Any peer answers it as well.
    Any,
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Candidate<'a> {
    /// Its breaker lets calls through.
    pub(crate) allowed: bool,
    /// It was configured, or has answered before: an address that only the cluster's own network
    /// can reach is of no use.
    pub(crate) proven: bool,
    /// It led when the members were last asked for.
    pub(crate) leads: bool,
    /// Where it stands, if that is known.
    pub(crate) region: Option<&'a str>,
    /// Calls of this client that are under way there.
    pub(crate) in_flight: u32,
}

/// The place of the best candidate: among those who may be asked, the leader where that saves a
/// hop, then those of the own region, then the least loaded; the first after `from` among equals.
///
/// `None` only where there is no candidate.
pub(crate) fn choose(
    candidates: &[Candidate<'_>],
    wish: Wish,
    region: Option<&str>,
    from: usize,
) -> Option<usize> {
    let count = candidates.len();
    let rank = |at: usize| {
        let candidate = &candidates[at];
        let leads = wish == Wish::Leader && candidate.leads;
        let near = region.is_some() && candidate.region == region;
        (candidate.allowed, candidate.proven, leads, near, Reverse(candidate.in_flight))
    };
    // The last of equals wins, so the walk goes backwards.
    (0..count).map(|step| (from + step) % count).rev().max_by_key(|at| rank(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WELL: Candidate<'static> =
        Candidate { allowed: true, proven: true, leads: false, region: None, in_flight: 0 };

    #[test]
    fn the_leader_is_asked_first_where_that_saves_a_hop() {
        let all = [WELL, Candidate { leads: true, in_flight: 9, ..WELL }, WELL];
        assert_eq!(choose(&all, Wish::Leader, None, 0), Some(1));
        assert_eq!(choose(&all, Wish::Any, None, 0), Some(0));
    }

    #[test]
    fn a_leader_that_does_not_answer_is_not_asked_first() {
        let open = Candidate { leads: true, allowed: false, ..WELL };
        let unseen = Candidate { leads: true, proven: false, ..WELL };
        assert_eq!(choose(&[open, WELL], Wish::Leader, None, 0), Some(1));
        assert_eq!(choose(&[unseen, WELL], Wish::Leader, None, 0), Some(1));
        assert_eq!(choose(&[open], Wish::Leader, None, 0), Some(0), "somebody is always asked");
    }

    #[test]
    fn the_own_region_comes_before_the_least_loaded() {
        let north = Candidate { region: Some("north"), in_flight: 3, ..WELL };
        let busier = Candidate { region: Some("north"), in_flight: 4, ..WELL };
        let south = Candidate { region: Some("south"), ..WELL };
        let all = [south, busier, north];
        assert_eq!(choose(&all, Wish::Any, Some("north"), 0), Some(2));
        assert_eq!(choose(&all, Wish::Any, Some("west"), 0), Some(0));
        assert_eq!(choose(&all, Wish::Any, None, 1), Some(0));
    }

    #[test]
    fn equals_are_asked_from_the_preferred_one_on() {
        assert_eq!(choose(&[WELL; 3], Wish::Any, None, 2), Some(2));
        assert_eq!(choose(&[], Wish::Any, None, 0), None);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_before_one_who_is_better_in_every_way(
            loads in prop::collection::vec((any::<[bool; 3]>(), 0_u32..4), 1..9),
            from in 0_usize..9,
        ) {
            let candidate = |&([allowed, proven, leads], in_flight): &([bool; 3], u32)| {
                Candidate { allowed, proven, leads, region: None, in_flight }
            };
            let all: Vec<_> = loads.iter().map(candidate).collect();
            let chosen = all[choose(&all, Wish::Leader, None, from).expect("one of them")];
            let rank = |one: &Candidate<'_>| (one.allowed, one.proven, one.leads, one.in_flight);
            let beaten = all.iter().any(|other| {
                let no_worse = other.allowed >= chosen.allowed
                    && other.proven >= chosen.proven
                    && other.leads >= chosen.leads
                    && other.in_flight <= chosen.in_flight;
                no_worse && rank(other) != rank(&chosen)
            });
            prop_assert!(!beaten);
        }
    }
}
