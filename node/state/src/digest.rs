//! One number for the whole state.
//!
//! Canonical: records in ascending order of their keys, integers as 8 bytes little-endian, texts
//! and lists behind their length, one number before each alternative. Indexes follow from the
//! records and are left out. A change of this encoding raises `DOMAIN` and belongs to a feature
//! level, since peers of two builds compare digests.

use crate::command::{Submit, TenantKey};
use crate::job::{ArtifactRef, Attempt, Digest, Job, Phase};
use crate::keys::KeyRecord;
use crate::lease::Lease;
use crate::roster::{Node, NodeId};
use crate::settings::{SettingChange, SettingValue, SettingsRecord};
use crate::state::State;
use crate::trail::{Author, TrailRecord};

/// At feature level 1: the encoding of the version before, with which such a cluster is shared.
const DOMAIN_FIRST: &[u8] = b"atelier-state 1";
const DOMAIN: &[u8] = b"atelier-state 2";

impl State {
    /// Returns the digest of the state's canonical encoding: equal states have equal digests on
    /// every machine.
    ///
    /// Its cost grows with the bytes of the state.
    pub fn digest(&self) -> Digest {
        let is_whole = self.has_level_2();
        let mut encoder = Encoder { hasher: blake3::Hasher::new(), is_whole };
        encoder.bytes(if is_whole { DOMAIN } else { DOMAIN_FIRST });
        encoder.number(self.applied.0);
        encoder.number(self.submit_sequence);
        encoder.number(self.forgotten);
        encoder.length(self.jobs.len());
        self.jobs.values().for_each(|job| encoder.job(job));
        encoder.length(self.nodes.len());
        self.nodes.iter().for_each(|(id, node)| encoder.node(*id, node));
        if is_whole {
            self.encode_rest(&mut encoder);
        }
        Digest(*encoder.hasher.finalize().as_bytes())
    }

    /// Encodes what there is from feature level 2 on.
    fn encode_rest(&self, encoder: &mut Encoder) {
        encoder.number(u64::from(self.features.0));
        encoder.number(self.assigned);
        encoder.tags(&self.fair.virtual_times);
        let tagged = || self.fair.tenants.iter().filter(|(_, it)| it.finish_tags != [0; 10]);
        encoder.length(tagged().count());
        for (tenant, record) in tagged() {
            encoder.text(tenant);
            encoder.tags(&record.finish_tags);
        }
        encoder.length(self.keys.forgotten.len());
        self.keys.forgotten.values().for_each(|record| encoder.key(record));
        encoder.number(self.settings.version());
        encoder.length(self.settings.stored().count());
        for (key, value, version) in self.settings.stored() {
            encoder.text(key);
            encoder.value(value);
            encoder.number(version);
        }
        encoder.length(self.settings_history().count());
        self.settings_history().for_each(|record| encoder.settings(record));
        encoder.number(self.marked.0);
        encoder.length(self.trail.len());
        self.trail().for_each(|record| encoder.act(record));
    }
}

struct Encoder {
    hasher: blake3::Hasher,
    // From feature level 2 on.
    is_whole: bool,
}

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
            attempts,
            artifacts,
            finished_ms,
            finished,
            cancel_reason,
            tag,
            stamp,
            retry_at_ms,
        } = job;
        self.submit(submit);
        self.number(accepted.0);
        self.number(*sequence);
        self.phase(phase);
        // 0 is neither a token nor a node.
        self.number(last_token.map_or(0, |token| token.0));
        self.number(last_node.map_or(0, |node| node.0));
        self.number(u64::from(*leases));
        self.length(attempts.len());
        attempts.iter().for_each(|attempt| self.attempt(attempt));
        self.length(artifacts.len());
        artifacts.iter().for_each(|artifact| self.artifact(artifact));
        self.number(*finished_ms);
        self.number(finished.0);
        self.text(cancel_reason);
        if self.is_whole {
            self.number(*tag);
            self.number(*stamp);
            self.number(*retry_at_ms);
        }
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let Attempt { token, node, error, failed_ms } = attempt;
        self.text(error);
        if self.is_whole {
            self.number(token.0);
            self.number(node.0);
            self.number(*failed_ms);
        }
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
            deadline_ms,
            max_runtime_s,
            cost,
            retry_of,
        } = submit;
        self.hasher.update(&job.to_bytes());
        self.text(tenant);
        self.number(u64::from(idempotency_key.is_some()));
        self.text(idempotency_key.as_deref().unwrap_or(""));
        self.number(u64::from(*priority));
        self.text(kind);
        self.bytes(parameters);
        self.text(traceparent);
        self.number(*submitted_ms);
        self.number(u64::from(*attempts_max));
        if self.is_whole {
            self.number(*deadline_ms);
            self.number(u64::from(*max_runtime_s));
            self.number(u64::from(*cost));
            // 0 is no job.
            self.hasher.update(&retry_of.map_or([0; 16], |job| job.to_bytes()));
        }
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
        self.hasher.update(&digest.0);
        self.number(*bytes);
        self.text(media_type);
        self.length(holders.len());
        holders.iter().for_each(|holder| self.number(holder.0));
    }

    fn node(&mut self, id: NodeId, node: &Node) {
        let Node { address, incarnation, slots, class, model, witness, draining, labels } = node;
        self.number(id.0);
        self.text(address);
        self.number(*incarnation);
        self.number(u64::from(*slots));
        self.text(class);
        self.text(model);
        if self.is_whole {
            self.number(u64::from(*witness));
            self.number(u64::from(*draining));
            self.length(labels.len());
            for (label, value) in labels {
                self.text(label);
                self.text(value);
            }
        }
    }

    fn key(&mut self, record: &KeyRecord) {
        let KeyRecord { key: TenantKey { tenant, key }, job, request, finished_ms } = record;
        self.text(tenant);
        self.text(key);
        self.hasher.update(&job.to_bytes());
        self.hasher.update(&request.0);
        self.number(*finished_ms);
    }

    fn settings(&mut self, record: &SettingsRecord) {
        let SettingsRecord { version, before, after, author } = record;
        self.number(*version);
        self.changes(before);
        self.changes(after);
        self.author(author);
    }

    fn changes(&mut self, changes: &[SettingChange]) {
        self.length(changes.len());
        for SettingChange { key, value } in changes {
            self.text(key);
            match value {
                None => self.number(0),
                Some(value) => self.value(*value),
            }
        }
    }

    fn value(&mut self, value: SettingValue) {
        match value {
            SettingValue::Number(number) => {
                self.number(1);
                self.number(number);
            }
            SettingValue::Flag(flag) => {
                self.number(2);
                self.number(u64::from(flag));
            }
        }
    }

    fn act(&mut self, record: &TrailRecord) {
        let TrailRecord { index, act, author } = record;
        self.number(index.0);
        self.text(act);
        self.author(author);
    }

    fn author(&mut self, author: &Author) {
        let Author { who, why, at_ms } = author;
        self.text(who);
        self.text(why);
        self.number(*at_ms);
    }

    fn tags(&mut self, tags: &[u64]) {
        tags.iter().for_each(|tag| self.number(*tag));
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.hasher.update(bytes);
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).expect("a usize fits"));
    }

    fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }
}
