//! A peer that answers as a script says, over real sockets, on a port of the system's choice.
//!
//! Peers of one [`World`] share jobs and artifacts, as a cluster does. A peer runs on a runtime of
//! its own, so that killing it closes its connections at once.

mod accept;
mod operate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::{Atelier, AtelierServer};
use futures_util::{Stream, StreamExt, stream};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a peer does with its next call of a method, instead of answering it.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Refuse(Code, &'static str, Vec<(&'static str, String)>),
    /// Says nothing.
    Hang,
    /// Does it, and says nothing.
    DoAndHang,
    /// Streams so many events, and then nothing more.
    StallAfter(usize),
    /// Streams so many events, and then the last one again and again.
    RepeatAfter(usize),
    /// Streams so many events, and then ends the stream.
    EndAfter(usize),
    /// Sends these bytes for an artifact.
    Bytes(&'static [u8]),
}

pub(crate) fn unavailable() -> Act {
    Act::Refuse(Code::Unavailable, "no leader", Vec::new())
}

/// What the peers of one cluster share.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) jobs: BTreeMap<String, wire::Job>,
    pub(crate) artifacts: BTreeMap<String, Vec<u8>>,
    pub(crate) members: Vec<wire::Member>,
    pub(crate) settings: operate::Settings,
    /// Nobody leads.
    pub(crate) leaderless: bool,
    /// Peers that are cut off from the rest: they know no leader, and nobody but themselves lives.
    pub(crate) cut_off: BTreeSet<u64>,
    /// The phase in which each job ends.
    pub(crate) end: Option<wire::Phase>,
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) address: String,
    service: Service,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Service {
    node: u64,
    world: Arc<Mutex<World>>,
    acts: Arc<Mutex<BTreeMap<&'static str, VecDeque<Act>>>>,
    /// Method and what it was about, in the order of arrival.
    calls: Arc<Mutex<Vec<(&'static str, String)>>>,
}

/// Peers 1 to n of one world, each a member; peer 1 leads.
pub(crate) fn cluster(peers: u64) -> (Arc<Mutex<World>>, Vec<Peer>) {
    let world = Arc::new(Mutex::new(World::default()));
    let peers: Vec<_> = (1..=peers)
        .map(|node| Peer::start(node, "127.0.0.1:0".parse().unwrap(), world.clone()))
        .collect();
    lock(&world).members =
        peers.iter().map(|peer| member(peer.service.node, &peer.address)).collect();
    (world, peers)
}

pub(crate) fn member(node: u64, address: &str) -> wire::Member {
    wire::Member {
        node,
        address: address.to_owned(),
        role: wire::MemberRole::Voter.into(),
        leader: node == 1,
        alive: true,
        slots: 2,
        leases: 0,
        engine: "flex cpu".into(),
        model: "toy".into(),
        matched_index: 9,
        ..Default::default()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

impl Peer {
    pub(crate) fn start(node: u64, address: SocketAddr, world: Arc<Mutex<World>>) -> Self {
        Self::start_with(node, address, world, None)
    }

    pub(crate) fn start_with(
        node: u64,
        address: SocketAddr,
        world: Arc<Mutex<World>>,
        tls: Option<ServerTlsConfig>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        // Another thread, since a test may be inside a runtime already.
        let handle = runtime.handle().clone();
        let bound = std::thread::spawn(move || handle.block_on(TcpListener::bind(address)));
        let listener = bound.join().expect("the binding thread").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (acts, calls) = Default::default();
        let service = Service { node, world, acts, calls };
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("sound certificates");
        }
        let server = server
            .add_service(AtelierServer::new(service.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        runtime.spawn(server);
        Self { address, service, runtime: Some(runtime) }
    }

    /// Says what to do with the next call of a method; may be said several times.
    pub(crate) fn script(&self, method: &'static str, act: Act) {
        lock(&self.service.acts).entry(method).or_default().push_back(act);
    }

    /// Answers the next calls of a method again.
    pub(crate) fn forget_script(&self, method: &'static str) {
        lock(&self.service.acts).remove(method);
    }

    /// What the calls of a method were about.
    pub(crate) fn calls(&self, method: &str) -> Vec<String> {
        let calls = lock(&self.service.calls);
        calls.iter().filter(|(name, _)| *name == method).map(|(_, what)| what.clone()).collect()
    }

    /// Dies at once: all its connections are closed.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The bytes of a job's image.
pub(crate) fn picture(image: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend(std::iter::repeat_n(image as u8, 100_000));
    bytes
}

/// What a peer shows after a step.
pub(crate) fn preview(step: u32) -> Vec<u8> {
    format!("a PNG of step {step}").into_bytes()
}

/// The life of a job, as a peer tells it, with previews.
pub(crate) fn story(job: &wire::Job, end: wire::Phase) -> Vec<wire::JobEvent> {
    let mut events = Vec::new();
    let mut tell = |phase: wire::Phase, log_index, change: &dyn Fn(&mut wire::Job), stage, step| {
        let mut job = job.clone();
        job.phase = phase.into();
        job.artifacts.clear();
        change(&mut job);
        let at = |stage: &str| wire::Progress {
            node: 2,
            token: 7,
            stage: stage.to_owned(),
            step,
            steps: 3,
            image: 0,
            encode_us: 250,
            denoise_us: 1_000,
            decode_us: 500,
        };
        let progress = Option::<&str>::map(stage, at);
        let preview = match stage {
            Some("denoise") => preview(step).into(),
            _ => bytes::Bytes::new(),
        };
        events.push(wire::JobEvent { job: Some(job), log_index, progress, preview });
    };
    tell(wire::Phase::Queued, 6, &|job| job.position = 1, None, 0);
    let leased = |job: &mut wire::Job| (job.node, job.token, job.leases) = (2, 7, 1);
    tell(wire::Phase::Leased, 7, &leased, None, 0);
    tell(wire::Phase::Leased, 7, &leased, Some("encode"), 0);
    for step in 1..=3 {
        tell(wire::Phase::Leased, 7, &leased, Some("denoise"), step);
    }
    tell(wire::Phase::Leased, 7, &leased, Some("decode"), 0);
    let finished = finished(job, end);
    tell(end, 8, &move |job| job.clone_from(&finished), None, 0);
    events
}

fn finished(job: &wire::Job, end: wire::Phase) -> wire::Job {
    let mut job = job.clone();
    job.phase = end.into();
    (job.node, job.token, job.leases, job.finished_ms) = (2, 7, 1, 1_795_290_566_000);
    if end != wire::Phase::Succeeded {
        job.artifacts.clear();
    }
    if end == wire::Phase::Failed {
        (job.attempts, job.error) = (3, "the engine ran out of memory".into());
    }
    job
}

impl Service {
    /// Books the call; answers with what the script says instead of an answer.
    async fn enter(&self, method: &'static str, what: &str) -> Result<Option<Act>, Status> {
        lock(&self.calls).push((method, what.to_owned()));
        let act = lock(&self.acts).get_mut(method).and_then(VecDeque::pop_front);
        match act {
            Some(Act::Refuse(code, message, metadata)) => {
                let mut status = Status::new(code, message);
                for (key, value) in metadata {
                    status.metadata_mut().insert(key, value.parse().expect("ascii metadata"));
                }
                Err(status)
            }
            Some(Act::Hang) => std::future::pending().await,
            act => Ok(act),
        }
    }

    /// Books the time that a call was allowed, where it was told one.
    fn book_timeout<T>(&self, method: &'static str, request: &Request<T>) {
        if let Some(allowed) = request.metadata().get("grpc-timeout") {
            let allowed = allowed.to_str().expect("ascii metadata").to_owned();
            lock(&self.calls).push((method, allowed));
        }
    }

    async fn hang_if(act: Option<Act>) {
        if let Some(Act::DoAndHang) = act {
            std::future::pending::<()>().await;
        }
    }

    fn find(&self, id: &str) -> Result<(wire::Job, wire::Phase), Status> {
        let world = lock(&self.world);
        let job = world.jobs.get(id).ok_or_else(|| Status::not_found(format!("no job {id}")))?;
        Ok((job.clone(), world.end.unwrap_or(wire::Phase::Succeeded)))
    }
}

#[tonic::async_trait]
impl Atelier for Service {
    type WatchStream = Events<wire::JobEvent>;
    type GetArtifactStream = Events<wire::ArtifactChunk>;

    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<wire::SubmitReply>, Status> {
        self.book_timeout("submit-timeout", &request);
        let act = self.enter("submit", &request.get_ref().job_id).await?;
        let reply = self.accept(request.into_inner());
        Self::hang_if(act).await;
        Ok(Response::new(reply))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.book_timeout("watch-timeout", &request);
        let wire::WatchRequest { job_id: id, previews, .. } = request.into_inner();
        let act = self.enter("watch", &id).await?;
        let (job, end) = self.find(&id)?;
        let wanted = move |event: wire::JobEvent| match previews {
            true => event,
            false => wire::JobEvent { preview: bytes::Bytes::new(), ..event },
        };
        let events = story(&job, end).into_iter().map(wanted).map(Ok);
        Ok(Response::new(match act {
            Some(Act::StallAfter(most)) => {
                stream::iter(events.take(most)).chain(stream::pending()).boxed()
            }
            Some(Act::RepeatAfter(most)) => {
                let events: Vec<_> = events.take(most).collect();
                let last = events[most - 1].clone();
                stream::iter(events).chain(stream::repeat(last).then(slowly)).boxed()
            }
            Some(Act::EndAfter(most)) => stream::iter(events.take(most)).boxed(),
            _ => stream::iter(events).boxed(),
        }))
    }

    type AwaitStream = Events<wire::AwaitReply>;

    /// Ends each job that is named, as [`World::end`] says; scripted by the job's id.
    async fn r#await(
        &self,
        request: Request<Streaming<wire::AwaitRequest>>,
    ) -> Result<Response<Self::AwaitStream>, Status> {
        let act = self.enter("await", "").await?;
        let service = self.clone();
        let answers = request.into_inner().map(move |asked| {
            let mut reply = wire::AwaitReply::default();
            for id in asked?.job_ids {
                lock(&service.calls).push(("awaited", id.clone()));
                match service.find(&id) {
                    Ok((job, end)) => reply.jobs.push(finished(&job, end)),
                    Err(_) => reply.unknown.push(id),
                }
            }
            Ok(reply)
        });
        Ok(Response::new(match act {
            Some(Act::StallAfter(most)) => answers.take(most).chain(stream::pending()).boxed(),
            Some(Act::EndAfter(most)) => answers.take(most).boxed(),
            _ => answers.boxed(),
        }))
    }

    async fn get_job(
        &self,
        request: Request<wire::GetJobRequest>,
    ) -> Result<Response<wire::Job>, Status> {
        let id = request.into_inner().job_id;
        self.enter("get_job", &id).await?;
        let job = lock(&self.world).job(&id);
        job.map(Response::new).ok_or_else(|| Status::not_found(format!("no job {id}")))
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsReply>, Status> {
        self.enter("list_jobs", &format!("{:?}", request.get_ref().phases)).await?;
        Ok(Response::new(lock(&self.world).list(request.into_inner())))
    }

    async fn cancel_job(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Result<Response<wire::Job>, Status> {
        let id = request.into_inner().job_id;
        self.enter("cancel_job", &id).await?;
        let (job, _) = self.find(&id)?;
        Ok(Response::new(finished(&job, wire::Phase::Cancelled)))
    }

    async fn get_artifact(
        &self,
        request: Request<wire::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        self.book_timeout("get_artifact-timeout", &request);
        let digest = request.into_inner().digest;
        let act = self.enter("get_artifact", &digest).await?;
        let bytes = match act {
            Some(Act::Bytes(bytes)) => bytes.to_vec(),
            _ => lock(&self.world)
                .artifacts
                .get(&digest)
                .cloned()
                .ok_or_else(|| Status::not_found(format!("no artifact {digest}")))?,
        };
        let chunks: Vec<_> = bytes
            .chunks(30_000)
            .map(|data| Ok(wire::ArtifactChunk { data: bytes::Bytes::copy_from_slice(data) }))
            .collect();
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    async fn put_artifact(
        &self,
        request: Request<tonic::Streaming<wire::ArtifactChunk>>,
    ) -> Result<Response<wire::Artifact>, Status> {
        self.enter("put_artifact", "").await?;
        let mut chunks = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend_from_slice(&chunk.data);
        }
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let count = bytes.len() as u64;
        lock(&self.world).artifacts.insert(digest.clone(), bytes);
        let media_type = "image/png".to_owned();
        Ok(Response::new(wire::Artifact { digest, bytes: count, media_type }))
    }

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusReply>, Status> {
        self.enter("status", "").await?;
        // One lock at a time: a second one in the same expression would wait for the first.
        let leaderless = lock(&self.world).is_leaderless(self.node);
        let members = lock(&self.world).seen_by(self.node);
        let paused = lock(&self.world).settings.paused();
        Ok(Response::new(wire::StatusReply {
            node: self.node,
            leader: u64::from(!leaderless),
            term: 3,
            last_log_index: 10,
            commit_index: 9,
            applied_index: 9,
            queued: 2,
            leased: 1,
            terminal: 5,
            version: "0.1.0".into(),
            state_digest: "ab".repeat(32),
            members,
            features: 2,
            settings_version: 0,
            paused,
            cluster: "studio".into(),
        }))
    }

    async fn list_members(
        &self,
        _: Request<wire::ListMembersRequest>,
    ) -> Result<Response<wire::ListMembersReply>, Status> {
        self.enter("list_members", "").await?;
        let members = lock(&self.world).seen_by(self.node);
        Ok(Response::new(wire::ListMembersReply { members }))
    }

    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let address = request.into_inner().address;
        let act = self.enter("add_member", &address).await?;
        Self::hang_if(act).await;
        let mut member = member(4, &address);
        member.role = wire::MemberRole::Learner.into();
        Ok(Response::new(member))
    }

    async fn promote_member(
        &self,
        request: Request<wire::PromoteMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let node = request.into_inner().node;
        self.enter("promote_member", &node.to_string()).await?;
        Ok(Response::new(member(node, "http://127.0.0.1:1")))
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberReply>, Status> {
        self.enter("remove_member", &request.get_ref().node.to_string()).await?;
        Ok(Response::new(wire::RemoveMemberReply {}))
    }

    async fn submit_batch(
        &self,
        request: Request<wire::SubmitBatchRequest>,
    ) -> Result<Response<wire::SubmitBatchReply>, Status> {
        let jobs = request.into_inner().jobs;
        let act = self.enter("submit_batch", &jobs.len().to_string()).await?;
        let outcomes = jobs.into_iter().map(|job| {
            let Some(wire::submit_request::Parameters::TextToImage(text)) = &job.parameters else {
                return operate::outcome(Err("expected parameters, got nothing"));
            };
            match text.prompt.as_str() {
                "" => operate::outcome(Err("expected a prompt, got nothing")),
                operate::UNKNOWN => operate::outcome(Err(operate::UNKNOWN)),
                _ => operate::outcome(Ok(self.accept(job))),
            }
        });
        let reply = wire::SubmitBatchReply { outcomes: outcomes.collect() };
        Self::hang_if(act).await;
        Ok(Response::new(reply))
    }

    async fn retry_job(
        &self,
        request: Request<wire::RetryJobRequest>,
    ) -> Result<Response<wire::SubmitReply>, Status> {
        let id = request.into_inner().job_id;
        self.enter("retry_job", &id).await?;
        Ok(Response::new(lock(&self.world).retry(&id)?))
    }

    async fn purge_jobs(
        &self,
        request: Request<wire::PurgeJobsRequest>,
    ) -> Result<Response<wire::PurgeJobsReply>, Status> {
        let request = request.into_inner();
        self.enter("purge_jobs", &request.limit.to_string()).await?;
        Ok(Response::new(lock(&self.world).purge(&request)))
    }

    async fn queue_stats(
        &self,
        _: Request<wire::QueueStatsRequest>,
    ) -> Result<Response<wire::QueueStatsReply>, Status> {
        self.enter("queue_stats", "").await?;
        Ok(Response::new(lock(&self.world).queue_stats()))
    }

    async fn get_settings(
        &self,
        _: Request<wire::GetSettingsRequest>,
    ) -> Result<Response<wire::SettingsReply>, Status> {
        self.enter("get_settings", "").await?;
        Ok(Response::new(lock(&self.world).settings.get()))
    }

    async fn set_settings(
        &self,
        request: Request<wire::SetSettingsRequest>,
    ) -> Result<Response<wire::SettingsReply>, Status> {
        self.enter("set_settings", "").await?;
        Ok(Response::new(lock(&self.world).settings.set(request.into_inner())?))
    }

    async fn settings_history(
        &self,
        _: Request<wire::SettingsHistoryRequest>,
    ) -> Result<Response<wire::SettingsHistoryReply>, Status> {
        self.enter("settings_history", "").await?;
        Ok(Response::new(lock(&self.world).settings.history()))
    }

    async fn demote_member(
        &self,
        request: Request<wire::DemoteMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let node = request.into_inner().node;
        self.enter("demote_member", &node.to_string()).await?;
        let mut member = member(node, "http://127.0.0.1:1");
        member.role = wire::MemberRole::Learner.into();
        Ok(Response::new(member))
    }

    async fn replace_member(
        &self,
        request: Request<wire::ReplaceMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let wire::ReplaceMemberRequest { node, comes, .. } = request.into_inner();
        self.enter("replace_member", &format!("{node} by {comes}")).await?;
        Ok(Response::new(member(comes, "http://127.0.0.1:9")))
    }

    async fn set_member(
        &self,
        request: Request<wire::SetMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let wire::SetMemberRequest { node, draining, labels_set, labels_removed, .. } =
            request.into_inner();
        let what = format!("{node} {draining:?} {labels_set:?} {labels_removed:?}");
        self.enter("set_member", &what).await?;
        let mut changed = member(node, "http://127.0.0.1:1");
        changed.draining = draining == Some(true);
        changed.labels = labels_set;
        lock(&self.world).drain(node, draining);
        Ok(Response::new(changed))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        let node = request.into_inner().node;
        self.enter("transfer_leader", &node.to_string()).await?;
        Ok(Response::new(wire::TransferLeaderReply { leader: if node == 0 { 2 } else { node } }))
    }

    async fn take_snapshot(
        &self,
        request: Request<wire::TakeSnapshotRequest>,
    ) -> Result<Response<wire::TakeSnapshotReply>, Status> {
        self.enter("take_snapshot", "").await?;
        drop(request);
        Ok(Response::new(wire::TakeSnapshotReply { log_index: 9, bytes: 4_096 }))
    }

    async fn place_mark(
        &self,
        request: Request<wire::PlaceMarkRequest>,
    ) -> Result<Response<wire::PlaceMarkReply>, Status> {
        self.enter("place_mark", "").await?;
        drop(request);
        Ok(Response::new(wire::PlaceMarkReply { log_index: 11 }))
    }

    async fn digest_at(
        &self,
        request: Request<wire::DigestAtRequest>,
    ) -> Result<Response<wire::DigestAtReply>, Status> {
        let act = self.enter("digest_at", &request.get_ref().log_index.to_string()).await?;
        let state_digest = match act {
            // Another state than the others have.
            Some(Act::Bytes(_)) => "cd".repeat(32),
            _ => "ab".repeat(32),
        };
        Ok(Response::new(wire::DigestAtReply { node: self.node, state_digest }))
    }

    async fn trail(
        &self,
        _: Request<wire::TrailRequest>,
    ) -> Result<Response<wire::TrailReply>, Status> {
        self.enter("trail", "").await?;
        Ok(Response::new(lock(&self.world).settings.trail()))
    }

    async fn examine(
        &self,
        request: Request<wire::ExamineRequest>,
    ) -> Result<Response<wire::ExamineReply>, Status> {
        self.enter("examine", "").await?;
        drop(request);
        let finding = |check: &str, level: wire::FindingLevel, found: &str, fix: &str| {
            let [check, found, fix] = [check, found, fix].map(str::to_owned);
            wire::Finding { check, level: level.into(), found, fix }
        };
        let findings = vec![
            finding("fsync", wire::FindingLevel::Ok, "slowest of 8: 2.0 ms", ""),
            finding("disk", wire::FindingLevel::Warn, "1.0 GiB free", "make room"),
        ];
        Ok(Response::new(wire::ExamineReply { node: self.node, findings, wall_ms: now_ms() }))
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

async fn slowly<T>(item: T) -> T {
    tokio::time::sleep(Duration::from_millis(20)).await;
    item
}

/// An address where nobody listens, and nobody else can begin to while this is held.
pub(crate) struct Nobody {
    pub(crate) address: String,
    _bound: TcpSocket,
}

pub(crate) fn nobody() -> Nobody {
    let bound = TcpSocket::new_v4().expect("a socket");
    bound.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = format!("http://{}", bound.local_addr().expect("an address"));
    Nobody { address, _bound: bound }
}

/// Options for tests: no pause is long, nothing is learned unless asked for.
pub(crate) fn quick() -> atelier_client::Options {
    atelier_client::Options {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        learn_members: false,
        ..atelier_client::Options::default()
    }
}

/// A picture to be drawn, under a new id.
pub(crate) fn wanted() -> atelier_client::Submission {
    atelier_client::Submission::new(atelier_client::TextToImage::new("a cat on a blue background"))
}
