//! Whole peers in one process, over real sockets and sled, with an engine that needs no device.

use super::*;
use crate::config::Member;
use crate::testing::{PAPER_STEPS, PaperEngine};
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_client::AtelierClient;
use std::path::Path;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

/// For anything that should happen at once; generous, since the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

struct Running {
    peer: Peer,
    config: Config,
    client: AtelierClient<Channel>,
}

async fn listeners() -> Listeners {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (grpc, http) = (bind().await.expect("a port"), bind().await.expect("a port"));
    Listeners { grpc, http }
}

fn config(node: u64, data: &Path, peers: Vec<Member>) -> Config {
    let mut config =
        Config { node, data: data.join(node.to_string()), peers, ..Default::default() };
    config.cluster = "test".to_owned();
    // Busy machines must not move the lead about while a test waits for something else.
    (config.raft.election_ms_min, config.raft.election_ms_max) = (1_000, 2_000);
    config.engine.model = "paper".into();
    config
}

async fn start(config: Config, listeners: Listeners) -> Running {
    let engine: Arc<dyn Engine> = Arc::new(PaperEngine::new(Duration::from_millis(20)));
    let engine = config.engine.enabled.then_some(engine);
    let outside = Outside::open(&config, engine).await.expect("a new directory opens");
    let peer = Peer::start(&config, outside, Some(listeners)).await.expect("the peer starts");
    let address = format!("http://{}", peer.grpc_address().expect("it listens"));
    let channel = Channel::from_shared(address).expect("an address").connect_lazy();
    Running { peer, config, client: AtelierClient::new(channel) }
}

async fn cluster(data: &TempDir, size: u64) -> Vec<Running> {
    let mut sockets = Vec::new();
    let mut peers = Vec::new();
    for id in 1..=size {
        let bound = listeners().await;
        let address = bound.grpc.local_addr().expect("it is bound");
        peers.push(Member { id, address: format!("http://{address}") });
        sockets.push(bound);
    }
    let mut running = Vec::new();
    for (id, sockets) in (1..).zip(sockets) {
        running.push(start(config(id, data.path(), peers.clone()), sockets).await);
    }
    for one in &running {
        ready(one).await;
    }
    running
}

async fn ready(one: &Running) {
    let reasons = || format!("node {}: {:?}", one.config.node, one.peer.unready_reasons());
    let ready = tokio::time::timeout(SOON, one.peer.ready()).await;
    ready.unwrap_or_else(|_| panic!("{}", reasons()));
}

fn cat(seed: u64) -> wire::SubmitRequest {
    let prompt = "a cat on a blue background".to_owned();
    let cat = wire::TextToImage { prompt, seed, ..Default::default() };
    let parameters = Some(wire::submit_request::Parameters::TextToImage(cat));
    wire::SubmitRequest { parameters, ..Default::default() }
}

async fn submit(one: &Running, seed: u64) -> String {
    let mut client = one.client.clone();
    client.submit(cat(seed)).await.expect("accepted").into_inner().job_id
}

/// Watches a job to its end, and answers it with the steps that were seen.
async fn watched(one: &Running, job_id: &str) -> (wire::Job, Vec<u32>) {
    let mut client = one.client.clone();
    let request = wire::WatchRequest { job_id: job_id.to_owned(), ..Default::default() };
    let mut events = client.watch(request).await.expect("it is known").into_inner();
    let (mut last, mut steps) = (None, Vec::new());
    let all = async {
        while let Some(event) = events.message().await.expect("no failure") {
            steps.extend(event.progress.as_ref().map(|progress| progress.step));
            last = event.job;
        }
    };
    tokio::time::timeout(SOON, all).await.expect("the job ends");
    (last.expect("a watch begins with the job"), steps)
}

async fn bytes(one: &Running, digest: &str) -> Vec<u8> {
    let mut client = one.client.clone();
    let request = wire::GetArtifactRequest { digest: digest.to_owned() };
    let mut chunks = client.get_artifact(request).await.expect("somebody has it").into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.expect("no failure") {
        bytes.extend_from_slice(&chunk.data);
    }
    bytes
}

async fn http(one: &Running, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(one.peer.http_address().expect("it listens"))
        .await
        .expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it takes the request");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers");
    text
}

fn leader(running: &[Running]) -> usize {
    let leads = |one: &Running| one.peer.raft().status().borrow().is_leader;
    running.iter().position(leads).expect("a ready cluster has a leader")
}

async fn stop(one: Running) {
    tokio::time::timeout(SOON, one.peer.stop()).await.expect("it leaves in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_peers_draw_whatever_any_of_them_is_asked() {
    let data = TempDir::new().expect("a directory");
    let mut running = cluster(&data, 3).await;
    for (seed, one) in (0..).zip(&running) {
        let job_id = submit(one, seed).await;
        let (job, steps) = watched(one, &job_id).await;
        assert_eq!(job.phase(), wire::Phase::Succeeded, "{job:?}");
        assert_eq!((job.artifacts.len(), job.leases), (1, 1));
        assert!(steps.is_sorted() && steps.last() <= Some(&PAPER_STEPS), "{steps:?}");
        let first = bytes(&running[0], &job.artifacts[0].digest).await;
        assert_eq!(first.len() as u64, job.artifacts[0].bytes);
        for other in &running[1..] {
            assert_eq!(bytes(other, &job.artifacts[0].digest).await, first);
        }
    }
    let digest = the_state_is_equal_everywhere(&running).await;
    assert_eq!(digest.len(), 64);
    probes_tell_what_is(&running[0]).await;
    reflection_names_the_services(&running[0]).await;
    the_others_go_on_without_the_leader(&mut running).await;
    for one in running {
        stop(one).await;
    }
}

async fn the_state_is_equal_everywhere(running: &[Running]) -> String {
    let told = async {
        loop {
            let mut told = Vec::new();
            for one in running {
                let status = one.client.clone().status(wire::StatusRequest {}).await;
                let status = status.expect("told").into_inner();
                assert_eq!(status.members.len(), running.len());
                told.push((status.applied_index, status.state_digest));
            }
            if told.iter().all(|one| *one == told[0]) {
                return told.remove(0).1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.expect("the peers agree")
}

async fn probes_tell_what_is(one: &Running) {
    assert!(http(one, "/health").await.ends_with("{\"status\":\"healthy\"}"));
    assert!(http(one, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = http(one, "/metrics").await;
    assert!(metrics.contains("atelier_ready 1\n"), "{metrics}");
    assert!(metrics.contains("atelier_raft_members{role=\"voter\"} 3\n"), "{metrics}");
    assert!(metrics.contains("atelier_jobs_total{outcome=\"succeeded\"} 3\n"), "{metrics}");
    let address = format!("http://{}", one.peer.grpc_address().expect("it listens"));
    let channel = Channel::from_shared(address).expect("an address").connect_lazy();
    let service = "atelier.client.v1.Atelier".to_owned();
    let request = tonic_health::pb::HealthCheckRequest { service };
    let health = HealthClient::new(channel).check(request).await.expect("it is registered");
    assert_eq!(
        health.into_inner().status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );
}

/// The services that one version of reflection names. The versions' types differ only in their path.
macro_rules! services {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let list = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut client = ServerReflectionClient::new($channel);
        let replies = client.server_reflection_info(tokio_stream::once(request)).await;
        let reply = replies.expect("it answers").into_inner().message().await;
        let reply = reply.expect("no failure").expect("a reply");
        let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
            panic!("expected the services, got {reply:?}")
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
    }};
}

async fn reflection_names_the_services(one: &Running) {
    let address = format!("http://{}", one.peer.grpc_address().expect("it listens"));
    let channel = Channel::from_shared(address).expect("an address").connect_lazy();
    // Older grpcurl speaks v1alpha alone.
    for names in [services!(v1, channel.clone()), services!(v1alpha, channel)] {
        for name in ["atelier.client.v1.Atelier", "atelier.peer.v1.Peer", "grpc.health.v1.Health"] {
            assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
        }
    }
}

async fn the_others_go_on_without_the_leader(running: &mut Vec<Running>) {
    let gone = running.remove(leader(running));
    stop(gone).await;
    for (seed, one) in (100..).zip(running.iter()) {
        let job_id = submit(one, seed).await;
        let (job, _) = watched(one, &job_id).await;
        assert_eq!(job.phase(), wire::Phase::Succeeded, "{job:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_knows_its_jobs_and_forms_no_second_cluster() {
    let data = TempDir::new().expect("a directory");
    let one = cluster(&data, 1).await.remove(0);
    let job_id = submit(&one, 7).await;
    let (before, _) = watched(&one, &job_id).await;
    let config = one.config.clone();
    stop(one).await;
    let one = start(config, listeners().await).await;
    ready(&one).await;
    let (after, _) = watched(&one, &job_id).await;
    assert_eq!(before, after);
    assert_eq!(
        bytes(&one, &after.artifacts[0].digest).await.len() as u64,
        after.artifacts[0].bytes
    );
    stop(one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_joins_and_is_removed_again() {
    let data = TempDir::new().expect("a directory");
    let first = cluster(&data, 1).await.remove(0);
    let sockets = listeners().await;
    let address = format!("http://{}", sockets.grpc.local_addr().expect("it is bound"));
    let mut client = first.client.clone();
    let add = wire::AddMemberRequest { address: address.clone() };
    let added = client.add_member(add).await.expect("added").into_inner();
    assert_eq!(added.role(), wire::MemberRole::Learner);
    let mut config = config(added.node, data.path(), Vec::new());
    (config.join, config.engine.enabled, config.listen.advertise) = (true, false, address);
    let witness = start(config, sockets).await;
    ready(&witness).await;
    let job_id = submit(&witness, 9).await;
    assert_eq!(watched(&witness, &job_id).await.0.node, 1, "a witness draws nothing");
    let promote = wire::PromoteMemberRequest { node: added.node };
    let promoted = client.promote_member(promote).await.expect("promoted").into_inner();
    assert_eq!(promoted.role(), wire::MemberRole::Voter);
    let remove = wire::RemoveMemberRequest { node: added.node, author: None };
    client.remove_member(remove).await.expect("removed");
    let members = client.list_members(wire::ListMembersRequest {}).await.expect("told");
    assert_eq!(members.into_inner().members.len(), 1);
    stop(witness).await;
    stop(first).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_its_setting() {
    let taken = listeners().await;
    let mut config = Config::default();
    config.listen.grpc = taken.grpc.local_addr().expect("it is bound");
    let error = Listeners::bind(&config).await.err().expect("it is taken").to_string();
    assert!(error.contains("(listen.grpc)"), "{error}");
}

/// Sends a call over HTTP, and answers with all that came.
async fn http_call(one: &Running, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = one.peer.http_address().expect("it listens");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let length = body.len();
    let head = "HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json";
    let call = format!("POST {path} {head}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(call.as_bytes()).await.expect("it takes the call");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_calls_are_held_while_the_leader_leaves() {
    let data = TempDir::new().expect("a directory");
    let mut running = cluster(&data, 3).await;
    let gone = running.remove(leader(&running));
    let paths = ["/v1/images/generations", "/sdapi/v1/txt2img"];
    let call = |at: u64| {
        let one = &running[at as usize % 2];
        let body = format!("{{\"prompt\": \"a cat\", \"seed\": {at}}}");
        async move { http_call(one, paths[at as usize / 2 % 2], &body).await }
    };
    let calls = futures_util::future::join_all((0..12).map(call));
    let leaves = async {
        let mut view = running[0].peer.raft().view();
        let drawn = view.wait_for(|view| view.state.leased_count() > 0).await;
        drop(drawn.expect("the peer lives"));
        stop(gone).await;
    };
    let (told, ()) = tokio::time::timeout(SOON, async { tokio::join!(calls, leaves) })
        .await
        .expect("every call is answered");
    for text in told {
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text:.400}");
    }
    let jobs = running[0].peer.raft().view().borrow().state.jobs_count();
    assert_eq!(jobs, 12, "none was drawn twice");
    for one in running {
        stop(one).await;
    }
}
