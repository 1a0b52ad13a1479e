//! Calls between hosts without sockets: each goes to the other peer's gRPC services as a request in
//! memory, frame by frame, after the time that the link takes.
//!
//! Owns links and what is wrong with them. As with TCP a frame is never lost alone: while a link is
//! cut, frames wait; where it stays cut for longer than [`RESET`] the stream breaks. Frames of one
//! stream keep their order, streams do not keep theirs.

use super::chronicle::{Chronicle, Event};
use super::clients::Reach;
use super::hardware::address;
use crate::world::Rng;
use atelier_client::{ConnectError, Line, LineError};
use atelier_peer::ports::{Dial, DialError, Purpose};
use atelier_peer::tasks::{self, Group};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::service::Routes;
use tower::{Service, service_fn};

/// How long a stream outlives a cut link: as the keep-alive of real connections.
const RESET: Duration = Duration::from_secs(4);
/// How long a call waits for a connection over a cut link.
const CONNECT: Duration = Duration::from_secs(1);

/// All links. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    links: Mutex<Links>,
    /// Changes with each cut and each healing.
    weather: watch::Sender<u64>,
    chronicle: Chronicle,
}

struct Links {
    rng: Rng,
    hosts: BTreeMap<String, Host>,
    cuts: BTreeSet<(String, String)>,
    /// Milliseconds that every frame takes longer, at most.
    slow_ms: u64,
    trace: blake3::Hasher,
    calls: u64,
    origin: Instant,
}

#[derive(Clone)]
struct Host {
    routes: Routes,
    group: Group,
}

/// A part of a stream on its way, and the moment at which it is there.
enum Part {
    Frame(Instant, Frame<Bytes>),
    Failed(Status),
    End(Instant),
}

impl Network {
    pub(crate) fn new(seed: u64, chronicle: Chronicle) -> Network {
        let links = Links {
            rng: Rng::of(seed, "network"),
            hosts: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow_ms: 0,
            trace: blake3::Hasher::new(),
            calls: 0,
            origin: Instant::now(),
        };
        let weather = watch::Sender::new(0);
        Network { shared: Arc::new(Shared { links: Mutex::new(links), weather, chronicle }) }
    }

    /// Lets a process answer at its address.
    pub(crate) fn join(&self, address: String, routes: Routes, group: Group) {
        self.links().hosts.insert(address, Host { routes, group });
    }

    /// Lets nobody answer at an address any more.
    pub(crate) fn leave(&self, address: &str) {
        self.links().hosts.remove(address);
        self.change();
    }

    /// Lets no frame pass from one address to another, but for those that are nearly there.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.links().cuts.insert((from.to_owned(), to.to_owned()));
        self.change();
    }

    /// Lets frames pass again.
    pub(crate) fn mend(&self, from: &str, to: &str) {
        self.links().cuts.remove(&(from.to_owned(), to.to_owned()));
        self.change();
    }

    /// Makes every frame take up to so much longer.
    pub(crate) fn slow(&self, by_ms: u64) {
        self.links().slow_ms = by_ms;
    }

    /// Notes something for people.
    pub(crate) fn tell(&self, event: Event) {
        self.shared.chronicle.note(event);
    }

    /// Notes something in the trace.
    pub(crate) fn note(&self, what: &str) {
        self.links().note(what);
    }

    /// Returns the digest of all that went over the network, and how many calls there were.
    pub(crate) fn trace(&self) -> (String, u64) {
        let links = self.links();
        (links.trace.finalize().to_hex().to_string(), links.calls)
    }

    /// Makes a line from one address to another.
    pub(crate) fn line(&self, from: &str, to: &str) -> Line {
        let (network, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        Line::new(service_fn(move |request: http::Request<Body>| {
            let (network, from, to) = (network.clone(), from.clone(), to.clone());
            async move { network.call(&from, &to, request).await.map_err(LineError::new) }
        }))
    }

    async fn call(
        &self,
        from: &str,
        to: &str,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let delay = {
            let mut links = self.links();
            links.calls += 1;
            links.note(&format!("{from} {to} {}", request.uri().path()));
            links.delay()
        };
        sleep(delay).await;
        self.passable(from, to, CONNECT).await?;
        let host = self.links().hosts.get(to).cloned();
        let Host { routes, group } =
            host.ok_or_else(|| Status::unavailable("tcp connect error"))?;
        let (head, body) = request.into_parts();
        let request = http::Request::from_parts(head, self.carried(from, to, body));
        let mut routes = routes;
        let answering = group.spawn(async move { routes.call(request).await });
        let answered = AbortOnDropHandle::new(answering).await;
        let response = answered.map_err(|_| reset())?;
        let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        // The body is read where it was made, so that it ends with its process.
        let body = self.carried_by(&group, (to, from), body);
        let delay = self.links().delay();
        sleep(delay).await;
        self.passable(to, from, RESET).await?;
        Ok(http::Response::from_parts(head, body))
    }

    /// Waits until frames may pass.
    async fn passable(&self, from: &str, to: &str, patience: Duration) -> Result<(), Status> {
        let mut weather = self.shared.weather.subscribe();
        let link = (from.to_owned(), to.to_owned());
        let free = weather.wait_for(|_| !self.links().cuts.contains(&link));
        match timeout(patience, free).await {
            Ok(_) => Ok(()),
            Err(_) => Err(reset()),
        }
    }

    fn carried(&self, from: &str, to: &str, body: Body) -> Body {
        let (parts, carried) = mpsc::unbounded_channel();
        drop(tasks::spawn(self.clone().carry(body, parts)));
        self.clone().arriving((from.to_owned(), to.to_owned()), carried)
    }

    fn carried_by(&self, group: &Group, (from, to): (&str, &str), body: Body) -> Body {
        let (parts, carried) = mpsc::unbounded_channel();
        drop(group.spawn(self.clone().carry(body, parts)));
        self.clone().arriving((from.to_owned(), to.to_owned()), carried)
    }

    /// Takes frames from their maker and dates them.
    async fn carry(self, mut body: Body, parts: mpsc::UnboundedSender<Part>) {
        let mut last = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = parts.closed() => return,
                frame = body.frame() => frame,
            };
            last = last.max(Instant::now() + self.links().delay());
            let (part, is_last) = match frame {
                Some(Ok(frame)) => (Part::Frame(last, frame), false),
                Some(Err(status)) => (Part::Failed(status), true),
                None => (Part::End(last), true),
            };
            if parts.send(part).is_err() || is_last {
                return;
            }
        }
    }

    fn arriving(self, link: (String, String), parts: mpsc::UnboundedReceiver<Part>) -> Body {
        let frames = stream::unfold(Some((self, link, parts)), |arriving| async move {
            let (network, link, mut parts) = arriving?;
            let frame = network.arrive(&link, parts.recv().await).await?;
            let goes_on = frame.is_ok();
            Some((frame, goes_on.then_some((network, link, parts))))
        });
        let frames: BoxStream<'static, Result<Frame<Bytes>, Status>> = Box::pin(frames);
        Body::new(StreamBody::new(frames))
    }

    async fn arrive(
        &self,
        (from, to): &(String, String),
        part: Option<Part>,
    ) -> Option<Result<Frame<Bytes>, Status>> {
        let at = match &part {
            Some(Part::Frame(at, _) | Part::End(at)) => *at,
            Some(Part::Failed(_)) | None => Instant::now(),
        };
        sleep_until(at).await;
        if let Err(broken) = self.passable(from, to, RESET).await {
            return Some(Err(broken));
        }
        match part {
            Some(Part::Frame(_, frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.links().note(&format!("{from} {to} {bytes}"));
                Some(Ok(frame))
            }
            Some(Part::Failed(status)) => Some(Err(status)),
            Some(Part::End(_)) => None,
            // Its maker died.
            None => Some(Err(reset())),
        }
    }

    fn change(&self) {
        self.shared.weather.send_modify(|count| *count += 1);
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn delay(&mut self) -> Duration {
        let slow_ms = self.slow_ms;
        let slow_us = if slow_ms > 0 { 1_000 * self.rng.below(slow_ms) } else { 0 };
        Duration::from_micros(slow_us + self.rng.between(50..=1_500))
    }

    fn note(&mut self, what: &str) {
        let at = self.origin.elapsed().as_micros();
        self.trace.update(format!("{at} {what}\n").as_bytes());
    }
}

fn reset() -> Status {
    Status::unavailable("connection reset")
}

/// One host's way to all others.
pub(crate) struct SimulatedDial {
    pub(crate) network: Network,
    pub(crate) from: String,
}

impl Reach for Network {
    fn address(&self, peer: u64) -> String {
        address(peer)
    }

    fn line(&self, from: &str, to: &str) -> Result<Line, ConnectError> {
        Ok(Network::line(self, from, to))
    }
}

impl Dial for SimulatedDial {
    fn line(&self, address: &str, _purpose: Purpose) -> Result<Line, DialError> {
        Ok(self.network.line(&self.from, address))
    }
}
