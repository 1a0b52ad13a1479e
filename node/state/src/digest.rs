//! One number for the whole state.
//!
//! Canonical: records in ascending order of their keys, integers as 8 bytes little-endian, texts
//! and lists behind their length, one number before each alternative. Indexes follow from the
//! records and are left out. A change of this encoding raises `DOMAIN`, since peers of two builds
//! compare digests.

use crate::command::Submit;
use crate::job::{ArtifactRef, Digest, Job, Phase};
use crate::lease::Lease;
use crate::roster::{Node, NodeId};
use crate::state::State;

const DOMAIN: &[u8] = b"atelier-state 1";

impl State {
    /// Returns the digest of the state's canonical encoding: equal states have equal digests on
    /// every machine.
    ///
    /// Its cost grows with the bytes of the state.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.bytes(DOMAIN);
        encoder.number(self.applied.0);
        encoder.number(self.submit_sequence);
        encoder.number(self.forgotten);
        encoder.length(self.jobs.len());
        self.jobs.values().for_each(|job| encoder.job(job));
        encoder.length(self.nodes.len());
        self.nodes.iter().for_each(|(id, node)| encoder.node(*id, node));
        Digest(*encoder.0.finalize().as_bytes())
    }
}

struct Encoder(blake3::Hasher);

impl Encoder {
    // Records are taken apart without `..`, so that a new field cannot be left out.
    fn job(&mut self, job: &Job) {
        let Job {
            submit,
            accepted,
            sequence,
            phase,
            last_token,
            last_node,
            leases,
            errors,
            artifacts,
            finished_ms,
            finished,
            cancel_reason,
        } = job;
        self.submit(submit);
        self.number(accepted.0);
        self.number(*sequence);
        self.phase(phase);
        // 0 is neither a token nor a node.
        self.number(last_token.map_or(0, |token| token.0));
        self.number(last_node.map_or(0, |node| node.0));
        self.number(u64::from(*leases));
        self.length(errors.len());
        errors.iter().for_each(|error| self.text(error));
        self.length(artifacts.len());
        artifacts.iter().for_each(|artifact| self.artifact(artifact));
        self.number(*finished_ms);
        self.number(finished.0);
        self.text(cancel_reason);
    }

    fn submit(&mut self, submit: &Submit) {
        let Submit {
            job,
            tenant,
            idempotency_key,
            priority,
            kind,
            parameters,
            traceparent,
            submitted_ms,
            attempts_max,
        } = submit;
        self.0.update(&job.to_bytes());
        self.text(tenant);
        self.number(u64::from(idempotency_key.is_some()));
        self.text(idempotency_key.as_deref().unwrap_or(""));
        self.number(u64::from(*priority));
        self.text(kind);
        self.bytes(parameters);
        self.text(traceparent);
        self.number(*submitted_ms);
        self.number(u64::from(*attempts_max));
    }

    fn phase(&mut self, phase: &Phase) {
        match phase {
            Phase::Queued => self.number(1),
            Phase::Leased(Lease { token, node, incarnation }) => {
                self.number(2);
                self.number(token.0);
                self.number(node.0);
                self.number(*incarnation);
            }
            Phase::Succeeded => self.number(3),
            Phase::Failed => self.number(4),
            Phase::Cancelled => self.number(5),
        }
    }

    fn artifact(&mut self, artifact: &ArtifactRef) {
        let ArtifactRef { digest, bytes, media_type, holders } = artifact;
        self.0.update(&digest.0);
        self.number(*bytes);
        self.text(media_type);
        self.length(holders.len());
        holders.iter().for_each(|holder| self.number(holder.0));
    }

    fn node(&mut self, id: NodeId, node: &Node) {
        let Node { address, incarnation, slots, class, model } = node;
        self.number(id.0);
        self.text(address);
        self.number(*incarnation);
        self.number(u64::from(*slots));
        self.text(class);
        self.text(model);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.update(bytes);
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).expect("a usize fits"));
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }
}
