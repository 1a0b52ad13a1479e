//! A job as a peer accepts it: its pictures are there at once.

use super::{Service, lock, picture};
use atelier_proto::client::v1 as wire;

impl Service {
    pub(super) fn accept(&self, request: wire::SubmitRequest) -> wire::SubmitReply {
        let mut world = lock(&self.world);
        let duplicate = world.jobs.contains_key(&request.job_id);
        let wire::submit_request::Parameters::TextToImage(text) =
            request.parameters.expect("a client sends parameters");
        let artifacts = (0..text.images.max(1)).map(|image| {
            let bytes = picture(image);
            let digest = blake3::hash(&bytes).to_hex().to_string();
            let length = bytes.len() as u64;
            world.artifacts.insert(digest.clone(), bytes);
            wire::Artifact { digest, bytes: length, media_type: "image/png".into() }
        });
        let job = wire::Job {
            job_id: request.job_id.clone(),
            phase: wire::Phase::Queued.into(),
            tenant: if request.tenant.is_empty() { "default".into() } else { request.tenant },
            priority: request.priority.checked_sub(1).unwrap_or(5),
            submitted_ms: 1_795_290_563_000,
            log_index: 6,
            artifacts: artifacts.collect(),
            parameters: Some(wire::job::Parameters::TextToImage(text)),
            ..Default::default()
        };
        world.jobs.entry(request.job_id.clone()).or_insert(job);
        wire::SubmitReply { job_id: request.job_id, duplicate, log_index: 6 }
    }
}
