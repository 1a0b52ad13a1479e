//! The endpoints that a client knows, with one lazy line each.
//!
//! Owns addresses and lines; does not know what is called over them. Invariants: at least one
//! endpoint, at most [`ENDPOINTS_MAX`]; an address is held once; the configured ones never leave.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use atelier_proto::line::{self, Line};
use tokio::time::Instant;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint as Dialled, Identity};

use crate::breaker::Breaker;
use crate::choice::{self, Candidate, Wish};
use crate::error::ConnectError;
use crate::options::{Options, Tls};
use crate::types::Member;

/// More learned endpoints than this are dropped, more configured ones refused.
pub(crate) const ENDPOINTS_MAX: usize = 64;

/// The label of a member that says where it stands.
const REGION_LABEL: &str = "region";

/// Makes a lazy line to an address.
pub(crate) type Dial = Box<dyn Fn(&str) -> Result<Line, ConnectError> + Send + Sync>;

/// One peer's address and the line to it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) line: Line,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Endpoint").field(&self.address).finish()
    }
}

/// All endpoints, what is known of each, and the one that answered last.
pub(crate) struct Pool {
    dial: Dial,
    scheme: Scheme,
    /// The caller's own; see [`Options::region`].
    region: Option<String>,
    known: Mutex<Known>,
}

struct Known {
    entries: Vec<Entry>,
    preferred: usize,
}

struct Entry {
    endpoint: Endpoint,
    breaker: Breaker,
    proven: bool,
    leads: bool,
    region: Option<String>,
    in_flight: u32,
}

/// A call that is under way at an endpoint, for as long as this lives.
pub(crate) struct UnderWay<'a> {
    pool: &'a Pool,
    address: &'a str,
}

impl Pool {
    pub(crate) fn new(
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
        region: Option<String>,
        scheme: Scheme,
        dial: Dial,
    ) -> Result<Self, ConnectError> {
        let mut entries: Vec<Entry> = Vec::new();
        for address in addresses {
            let address = normal(address.as_ref(), scheme)?;
            if entries.iter().all(|known| known.endpoint.address != address) {
                let endpoint = Endpoint { line: dial(&address)?, address };
                entries.push(Entry { proven: true, ..Entry::new(endpoint) });
            }
        }
        match entries.len() {
            0 => Err(ConnectError::NoEndpoints),
            got if got > ENDPOINTS_MAX => {
                Err(ConnectError::TooManyEndpoints { got, max: ENDPOINTS_MAX })
            }
            _ => {
                let known = Mutex::new(Known { entries, preferred: 0 });
                Ok(Self { dial, scheme, region, known })
            }
        }
    }

    /// Whom to ask first; see [`choice::choose`]. Equals are taken from the one that answered last.
    pub(crate) fn choose(&self, wish: Wish, now: Instant) -> Endpoint {
        let known = self.known();
        let candidates: Vec<_> = known.entries.iter().map(|entry| entry.candidate(now)).collect();
        let best = choice::choose(&candidates, wish, self.region.as_deref(), known.preferred);
        known.entries[best.unwrap_or(known.preferred)].endpoint.clone()
    }

    /// The endpoint after the one at the address, round and round. One that is left alone or was
    /// never seen is passed over as long as there is a better one. Regions are not looked at: where
    /// one fails as a whole, its own would be asked to and fro.
    pub(crate) fn after(&self, address: &str, now: Instant) -> Endpoint {
        let known = self.known();
        let count = known.entries.len();
        let from = known.position(address).unwrap_or(count - 1);
        let others = || (1..count).map(|step| &known.entries[(from + step) % count]);
        let allowed = |entry: &&Entry| entry.breaker.allows(now);
        let best = others().find(|entry| entry.proven && allowed(entry));
        let next = best.or_else(|| others().find(allowed)).or_else(|| others().next());
        next.unwrap_or(&known.entries[from]).endpoint.clone()
    }

    /// The endpoint at an address, learned if need be; `None` when it cannot be dialled or when
    /// there are too many.
    pub(crate) fn learn(&self, address: &str) -> Option<Endpoint> {
        let address = normal(address, self.scheme).ok()?;
        let mut known = self.known();
        if let Some(at) = known.position(&address) {
            return Some(known.entries[at].endpoint.clone());
        }
        if known.entries.len() == ENDPOINTS_MAX {
            return None;
        }
        let endpoint = Endpoint { line: (self.dial)(&address).ok()?, address };
        known.entries.push(Entry::new(endpoint.clone()));
        Some(endpoint)
    }

    /// Learns where the members are, who of them leads, and the region of each; returns those that
    /// nobody has seen yet.
    pub(crate) fn update<'a>(&self, members: &'a [Member]) -> Vec<Endpoint> {
        let learn = |member: &'a Member| Some((self.learn(&member.address)?.address, member));
        let members: BTreeMap<String, &'a Member> = members.iter().filter_map(learn).collect();
        let mut known = self.known();
        for entry in &mut known.entries {
            let member = members.get(&entry.endpoint.address);
            entry.leads = member.is_some_and(|member| member.leader);
            entry.region = member.and_then(|member| member.labels.get(REGION_LABEL).cloned());
        }
        let unseen = known.entries.iter().filter(|entry| !entry.proven);
        unseen.map(|entry| entry.endpoint.clone()).collect()
    }

    /// Counts a call as under way.
    pub(crate) fn begin<'a>(&'a self, address: &'a str) -> UnderWay<'a> {
        self.change(address, |entry| entry.in_flight += 1);
        UnderWay { pool: self, address }
    }

    /// Books that an endpoint answered; the next call that may go anywhere goes there.
    pub(crate) fn answered(&self, address: &str, now: Instant) {
        let mut known = self.known();
        if let Some(at) = known.position(address) {
            known.preferred = at;
            known.entries[at].proven = true;
            known.entries[at].breaker.succeeded(now);
        }
    }

    /// Books that an endpoint is there, though no call of a user was answered by it.
    pub(crate) fn seen(&self, address: &str, now: Instant) {
        self.change(address, |entry| {
            entry.proven = true;
            entry.breaker.succeeded(now);
        });
    }

    /// Books that an endpoint did not answer. Whoever led there may lead no more.
    pub(crate) fn silent(&self, address: &str, now: Instant) {
        self.change(address, |entry| {
            entry.leads = false;
            entry.breaker.failed(now);
        });
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.known().entries.iter().map(|entry| entry.endpoint.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.known().entries.len()
    }

    fn change(&self, address: &str, change: impl FnOnce(&mut Entry)) {
        let mut known = self.known();
        if let Some(at) = known.position(address) {
            change(&mut known.entries[at]);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one push or a few assignments, so a panic cannot have left it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn position(&self, address: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.endpoint.address == address)
    }
}

impl Entry {
    fn new(endpoint: Endpoint) -> Self {
        let breaker = Breaker::default();
        Self { endpoint, breaker, proven: false, leads: false, region: None, in_flight: 0 }
    }

    fn candidate(&self, now: Instant) -> Candidate<'_> {
        Candidate {
            allowed: self.breaker.allows(now),
            proven: self.proven,
            leads: self.leads,
            region: self.region.as_deref(),
            in_flight: self.in_flight,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.pool.change(self.address, |entry| entry.in_flight -= 1);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.endpoints().into_iter().map(|endpoint| endpoint.address);
        out.debug_list().entries(addresses).finish()
    }
}

/// Dials with the options' bounds.
pub(crate) fn dial(options: &Options) -> Dial {
    let options = options.clone();
    Box::new(move |address| Ok(line::over(dialled(address, &options)?.connect_lazy())))
}

/// What a line to an address is made of.
pub(crate) fn dialled(address: &str, options: &Options) -> Result<Dialled, ConnectError> {
    let dialled = Dialled::from_shared(address.to_owned())
        .map_err(|reason| bad(address, &reason.to_string()))?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true);
    let Some(tls) = &options.tls else { return Ok(dialled) };
    let refused = |error: tonic::transport::Error| ConnectError::Tls {
        reason: std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), ToString::to_string),
    };
    dialled.tls_config(tls_config(tls)).map_err(refused)
}

fn tls_config(tls: &Tls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    config = config.ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    match &tls.domain {
        Some(domain) => config.domain_name(domain),
        None => config,
    }
}

/// How endpoints are spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// One spelling for each address: with the scheme that is spoken, without a slash at the end.
///
/// With TLS every address is dialled with it, those too that members are told under as `http`:
/// what was to be secret must not go out plain because a peer's configuration says so.
fn normal(address: &str, scheme: Scheme) -> Result<String, ConnectError> {
    let host = match address.trim().split_once("://") {
        None => address.trim(),
        Some(("http", host)) => host,
        Some(("https", host)) if scheme == Scheme::Https => host,
        Some(("https", _)) => {
            return Err(bad(address, "https wants TLS, and the options have none"));
        }
        Some((other, _)) => {
            return Err(bad(address, &format!("the scheme {other} is not spoken")));
        }
    };
    let host = host.trim_end_matches('/');
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) || host.contains(['/', ' ', '?']) {
        return Err(bad(address, "there is no host with a port"));
    }
    Ok(match scheme {
        Scheme::Http => format!("http://{host}"),
        Scheme::Https => format!("https://{host}"),
    })
}

fn bad(address: &str, reason: &str) -> ConnectError {
    ConnectError::Address { address: address.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::types::Role;

    fn pool(addresses: &[&str]) -> Result<Pool, ConnectError> {
        pool_in(None, addresses)
    }

    fn pool_in(region: Option<&str>, addresses: &[&str]) -> Result<Pool, ConnectError> {
        let region = region.map(str::to_owned);
        Pool::new(addresses, region, Scheme::Http, dial(&Options::default()))
    }

    fn member(node: u64, address: &str, leader: bool) -> Member {
        Member {
            node,
            address: address.to_owned(),
            role: Role::Voter,
            leader,
            alive: true,
            slots: 1,
            leases: 0,
            engine: String::new(),
            model: String::new(),
            matched_index: None,
            witness: false,
            draining: false,
            labels: std::collections::BTreeMap::new(),
            features: 0,
        }
    }

    #[tokio::test]
    async fn one_address_in_three_spellings_is_one_endpoint() {
        let pool = pool(&["127.0.0.1:1", "http://127.0.0.1:1", " http://127.0.0.1:1/ "]).unwrap();
        assert_eq!(pool.len(), 1);
        assert_eq!(pool.choose(Wish::Any, Instant::now()).address, "http://127.0.0.1:1");
    }

    #[tokio::test]
    async fn endpoints_are_asked_round_and_round_from_the_one_that_answered() {
        let (pool, now) = (pool(&["a:1", "b:1", "c:1"]).unwrap(), Instant::now());
        pool.answered("http://b:1", now);
        let mut address = pool.choose(Wish::Any, now).address;
        let mut walk = Vec::new();
        for _ in 0..4 {
            walk.push(address.clone());
            address = pool.after(&address, now).address;
        }
        assert_eq!(walk, ["http://b:1", "http://c:1", "http://a:1", "http://b:1"]);
    }

    #[tokio::test]
    async fn the_leader_is_asked_first_once_it_was_seen() {
        let (pool, now) = (pool(&["a:1"]).unwrap(), Instant::now());
        let unseen = pool.update(&[member(1, "http://a:1", false), member(2, "http://b:1", true)]);
        assert_eq!(unseen.len(), 1);
        assert_eq!(pool.choose(Wish::Leader, now).address, "http://a:1");
        pool.answered("http://b:1", now);
        pool.answered("http://a:1", now);
        assert_eq!(pool.choose(Wish::Leader, now).address, "http://b:1");
        assert_eq!(pool.choose(Wish::Any, now).address, "http://a:1");
        pool.silent("http://b:1", now);
        assert_eq!(pool.choose(Wish::Leader, now).address, "http://a:1");
    }

    /// The same member with a label that says where it stands.
    fn in_region(region: &str, mut member: Member) -> Member {
        member.labels.insert(REGION_LABEL.to_owned(), region.to_owned());
        member
    }

    #[tokio::test]
    async fn the_own_region_is_asked_first_once_the_members_say_where_they_stand() {
        let now = Instant::now();
        let pool = pool_in(Some("north"), &["a:1", "b:1", "c:1"]).unwrap();
        pool.answered("http://a:1", now);
        assert_eq!(pool.choose(Wish::Any, now).address, "http://a:1", "nobody has said anything");
        let north = in_region("north", member(2, "http://b:1", false));
        let south = in_region("south", member(3, "http://c:1", true));
        pool.update(&[member(1, "http://a:1", false), north, south.clone()]);
        let busy = pool.begin("http://b:1");
        assert_eq!(pool.choose(Wish::Any, now).address, "http://b:1");
        assert_eq!(pool.choose(Wish::Leader, now).address, "http://c:1", "it saves a hop");
        drop(busy);
        assert_eq!(pool.after("http://b:1", now).address, "http://c:1", "anywhere but there");
        (0..5).for_each(|_| pool.silent("http://b:1", now));
        assert_eq!(pool.choose(Wish::Any, now).address, "http://a:1", "better far than silent");
        pool.answered("http://b:1", now);
        pool.update(&[member(1, "http://a:1", false), member(2, "http://b:1", false), south]);
        pool.answered("http://a:1", now);
        assert_eq!(pool.choose(Wish::Any, now).address, "http://a:1", "its label was taken away");
    }

    #[tokio::test]
    async fn the_least_loaded_is_asked_until_its_call_ends() {
        let (pool, now) = (pool(&["a:1", "b:1"]).unwrap(), Instant::now());
        let under_way = pool.begin("http://a:1");
        assert_eq!(pool.choose(Wish::Any, now).address, "http://b:1");
        drop(under_way);
        assert_eq!(pool.choose(Wish::Any, now).address, "http://a:1");
    }

    #[tokio::test]
    async fn an_endpoint_that_fails_again_and_again_is_left_alone() {
        let (pool, now) = (pool(&["a:1", "b:1", "c:1"]).unwrap(), Instant::now());
        (0..5).for_each(|_| pool.silent("http://b:1", now));
        assert_eq!(pool.after("http://a:1", now).address, "http://c:1");
        (0..5).for_each(|_| pool.silent("http://c:1", now));
        assert_eq!(pool.after("http://a:1", now).address, "http://b:1", "somebody is asked");
    }

    #[tokio::test]
    async fn learning_is_bounded() {
        let pool = pool(&["a:1"]).unwrap();
        for port in 0..200 {
            pool.learn(&format!("b:{port}"));
        }
        assert_eq!(pool.len(), ENDPOINTS_MAX);
    }

    #[tokio::test]
    async fn what_cannot_be_dialled_is_refused_with_its_text() {
        for address in ["", "https://a:1", "http://", "a", "a:x", ":1", "a:1/path", "a b:1"] {
            let error = pool(&[address]).unwrap_err().to_string();
            assert!(error.contains(&format!("{address:?}")), "{error}");
        }
        assert!(matches!(pool(&[]), Err(ConnectError::NoEndpoints)));
    }

    #[test]
    fn with_tls_every_address_is_dialled_with_it() {
        for address in ["a:1", "http://a:1", "https://a:1/"] {
            assert_eq!(normal(address, Scheme::Https).unwrap(), "https://a:1");
        }
    }
}
