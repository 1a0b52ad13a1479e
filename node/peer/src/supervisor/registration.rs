//! How the cluster knows this process.
//!
//! Owns the incarnation and what the roster should say. Decides in [`Registration::wanted`], by
//! comparison with the view; [`register`] moves.

use super::SupervisorSettings;
use crate::ports::Clock;
use crate::ports::engine::EngineState;
use crate::proposer::Proposer;
use crate::view::View;
use atelier_state::command::{Command, RegisterNode};
use atelier_state::limits::TEXT_BYTES_MAX;
use atelier_state::reply::{LogIndex, Refusal, Reply};
use atelier_state::roster::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Before a registration that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// This process in the roster.
#[derive(Debug)]
pub(super) struct Registration {
    node: NodeId,
    address: String,
    slots: u32,
    is_witness: bool,
    // Whether the cluster understands that yet.
    says_witness: bool,
    incarnation: u64,
    // Of the engine that was last ready.
    class: String,
    model: String,
    // The last that was applied, and where; the view may not show it yet.
    last: Option<(RegisterNode, LogIndex)>,
    superseded: bool,
}

/// How a registration ended.
#[derive(Debug)]
pub(super) enum Registered {
    At(RegisterNode, LogIndex),
    /// The roster knows a later process under this node's id.
    Stale(u64),
    Failed,
}

impl Registration {
    pub(super) fn new(settings: &SupervisorSettings, incarnation: u64) -> Registration {
        let SupervisorSettings { node, address, slots, witness: is_witness, .. } = settings.clone();
        let (class, model) = (String::new(), String::new());
        let (last, superseded) = (None, false);
        Registration {
            node,
            address,
            slots,
            is_witness,
            says_witness: false,
            incarnation,
            class,
            model,
            last,
            superseded,
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Returns what to register, when the roster says something else.
    pub(super) fn wanted(&mut self, view: &View, engine: &EngineState) -> Option<RegisterNode> {
        let slots = match engine {
            EngineState::Ready(info) => {
                self.class = cut(&info.class);
                self.model = cut(&info.model);
                self.slots
            }
            // Leases that it holds stay; the engine may come back and finish them.
            EngineState::Loading { .. } | EngineState::Unfit(_) => 0,
        };
        self.says_witness = self.is_witness && view.state.features() >= 2;
        let wanted = self.record(slots);
        if let Some((last, index)) = &self.last
            && *last == wanted
            && view.applied < *index
        {
            return None;
        }
        let known = view.state.node(self.node);
        let is_known = known.is_some_and(|known| {
            known.address == wanted.address
                && known.incarnation == wanted.incarnation
                && known.slots == wanted.slots
                && known.class == wanted.class
                && known.model == wanted.model
                && known.witness == wanted.witness
        });
        let later = known.is_some_and(|known| known.incarnation > self.incarnation);
        if later && self.last.is_some() && !self.superseded {
            // Two processes that take the id from one another would never end.
            tracing::error!(node = %self.node, "another process runs under this node's id");
            self.superseded = true;
        }
        (!is_known && !self.superseded).then_some(wanted)
    }

    /// Returns the last registration: no slots.
    pub(super) fn farewell(&self) -> RegisterNode {
        self.record(0)
    }

    pub(super) fn take(&mut self, registered: Registered) {
        let node = self.node;
        match registered {
            Registered::At(record, index) => {
                let (incarnation, slots) = (record.incarnation, record.slots);
                tracing::info!(%node, incarnation, slots, index = index.0, "registered");
                self.last = Some((record, index));
            }
            Registered::Stale(known) => {
                // The wall clock went back between two starts.
                let incarnation = known.saturating_add(1).max(self.incarnation);
                tracing::warn!(%node, known, incarnation, "incarnation raised above the roster's");
                self.incarnation = incarnation;
            }
            Registered::Failed => {}
        }
    }

    fn record(&self, slots: u32) -> RegisterNode {
        RegisterNode {
            node: self.node,
            address: self.address.clone(),
            incarnation: self.incarnation,
            slots,
            class: self.class.clone(),
            model: self.model.clone(),
            witness: self.says_witness,
        }
    }
}

/// Proposes a registration; after a failure it waits, so that the caller may call again at once.
pub(super) async fn register(
    proposer: Proposer,
    clock: Arc<dyn Clock>,
    record: RegisterNode,
) -> Registered {
    let node = record.node;
    match proposer.propose(Command::RegisterNode(record.clone())).await {
        Ok((index, Reply::Done)) => return Registered::At(record, index),
        Ok((_, Reply::Refused(Refusal::StaleIncarnation(known)))) => {
            return Registered::Stale(known);
        }
        Ok((_, reply)) => tracing::error!(%node, ?reply, "registration was refused"),
        Err(error) => tracing::warn!(%node, %error, "not registered, tries again"),
    }
    clock.sleep(RETRY).await;
    Registered::Failed
}

/// Cuts a text to what the state takes.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::engine::EngineInfo;
    use atelier_state::state::State;

    fn ready() -> EngineState {
        EngineState::Ready(EngineInfo {
            class: "c".repeat(2 * TEXT_BYTES_MAX),
            model: "m".to_owned(),
            default_width: 64,
            default_height: 64,
            default_steps: 4,
            guided: false,
            files: Arc::default(),
        })
    }

    fn registration() -> Registration {
        Registration::new(&SupervisorSettings::new("c", NodeId(1), "http://a:1"), 5)
    }

    fn view(records: &[RegisterNode], applied: u64) -> View {
        let mut state = State::new();
        for record in records {
            let reply = state.apply(LogIndex(1), &Command::RegisterNode(record.clone()));
            assert_eq!(reply, Reply::Done);
        }
        View { state, applied: LogIndex(applied) }
    }

    #[test]
    fn what_is_registered_is_not_said_again_while_the_view_is_behind() {
        let mut registration = registration();
        let record = registration.wanted(&view(&[], 3), &ready()).expect("nothing is known");
        assert_eq!((record.slots, record.class.len()), (1, TEXT_BYTES_MAX));
        registration.take(Registered::At(record.clone(), LogIndex(7)));
        assert_eq!(registration.wanted(&view(&[], 6), &ready()), None);
        // The view has passed it, and somebody has removed the node.
        assert_eq!(registration.wanted(&view(&[], 7), &ready()), Some(record.clone()));
        assert_eq!(registration.wanted(&view(&[record], 7), &ready()), None);
    }

    #[test]
    fn a_change_is_said_though_the_last_one_is_not_in_the_view_yet() {
        let mut registration = registration();
        let record = registration.wanted(&view(&[], 3), &ready()).expect("nothing is known");
        registration.take(Registered::At(record.clone(), LogIndex(7)));
        let unfit = EngineState::Unfit(String::new());
        let without = registration.wanted(&view(&[], 3), &unfit).expect("slots changed");
        // The engine's name stays: it is whose slots these were.
        assert_eq!(without, RegisterNode { slots: 0, ..record });
    }

    #[test]
    fn a_process_that_was_superseded_does_not_fight() {
        let mut registration = registration();
        let record = registration.wanted(&view(&[], 3), &ready()).expect("nothing is known");
        let later = RegisterNode { incarnation: 9, ..record.clone() };
        // Before it was ever registered, a later incarnation is a clock that went back.
        assert!(registration.wanted(&view(std::slice::from_ref(&later), 3), &ready()).is_some());
        registration.take(Registered::Stale(9));
        assert_eq!(registration.incarnation(), 10);
        registration.take(Registered::At(record, LogIndex(4)));
        let latest = RegisterNode { incarnation: 11, ..later };
        assert_eq!(registration.wanted(&view(&[latest], 5), &ready()), None);
        assert_eq!(registration.wanted(&view(&[], 6), &ready()), None);
    }
}
