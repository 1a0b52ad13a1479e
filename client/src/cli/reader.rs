//! Who is asked for what the cluster knows: a peer that a leader answers, or any, if that will do.

use atelier_client::{Client, Status, Survey};
use serde::Serialize;

use super::args::StaleArgs;
use super::failure::Failure;
use super::json::{Body, Document};
use super::output::note;
use super::{Context, PATIENCE_ASK, status};

/// A client to read with, and whose word it takes where no leader confirms it.
pub(super) struct Reader {
    pub(super) client: Client,
    stale: Option<StaleView>,
}

/// Whose word an answer is, and how far that peer has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct StaleView {
    node: u64,
    address: String,
    /// As it knows; null where it knows none.
    leader: Option<u64>,
    term: u64,
    applied_index: u64,
    /// Entries that the furthest of the peers that answer has more; what is behind those that do
    /// not answer nobody knows.
    behind: u64,
}

impl Reader {
    /// Without `--stale` a leader must answer the peer that is asked; with it the first endpoint
    /// that answers will do.
    pub(super) async fn new(context: &Context, stale: StaleArgs) -> Result<Self, Failure> {
        if !stale.stale {
            return Ok(Self { client: context.client(PATIENCE_ASK)?, stale: None });
        }
        let survey = context.any_client(PATIENCE_ASK)?.survey().await;
        let first = survey.answers.iter().find_map(|one| {
            let status = one.status.as_ref().ok()?;
            Some(StaleView::new(&one.address, status, &survey))
        });
        let stale = first.ok_or_else(|| status::nobody(context, &survey))?;
        let client = context.client_of(&stale.address, PATIENCE_ASK)?;
        Ok(Self { client, stale: Some(stale) })
    }

    /// Prints the answer as a document.
    pub(super) fn document(&self, context: &Context, body: Body) -> Result<(), Failure> {
        context.output.document(&Document::stale(body, self.stale.clone()))
    }

    /// Says whose word the answer is, after it was printed.
    pub(super) fn told(&self) {
        if let Some(stale) = &self.stale {
            note(&stale.words());
        }
    }
}

impl StaleView {
    fn new(address: &str, status: &Status, survey: &Survey) -> Self {
        let furthest = survey.statuses().map(|one| one.applied_index).max().unwrap_or(0);
        Self {
            node: status.node,
            address: address.to_owned(),
            leader: status.leader,
            term: status.term,
            applied_index: status.applied_index,
            behind: furthest.saturating_sub(status.applied_index),
        }
    }

    fn words(&self) -> String {
        let Self { node, address, leader, term, applied_index, behind } = self;
        let leader = match leader {
            Some(leader) if leader == node => "takes itself for the leader".to_owned(),
            Some(leader) => format!("follows node {leader}"),
            None => "knows no leader".to_owned(),
        };
        format!(
            "stale: the word of node {node} at {address}, which {leader}; it stands at entry \
             {applied_index} in term {term}, {behind} behind the furthest that answers"
        )
    }
}
