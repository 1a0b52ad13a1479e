//! The endpoints that a client knows, with one lazy channel each.
//!
//! Owns addresses and channels; does not know what is called over them. Invariants: at least one
//! endpoint, at most [`ENDPOINTS_MAX`]; an address is held once; the configured ones never leave.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::transport::{Channel, Endpoint as Dialled};

use crate::error::ConnectError;
use crate::options::Options;

/// More learned endpoints than this are dropped, more configured ones refused.
pub(crate) const ENDPOINTS_MAX: usize = 64;

/// Makes a lazy channel to an address.
pub(crate) type Dial = Box<dyn Fn(&str) -> Result<Channel, ConnectError> + Send + Sync>;

/// One peer's address and the channel to it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

/// All endpoints, and the one that answered last.
pub(crate) struct Pool {
    dial: Dial,
    known: Mutex<Known>,
}

struct Known {
    endpoints: Vec<Endpoint>,
    preferred: usize,
}

impl Pool {
    pub(crate) fn new(
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
        dial: Dial,
    ) -> Result<Self, ConnectError> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for address in addresses {
            let address = normal(address.as_ref())?;
            if endpoints.iter().all(|known| known.address != address) {
                endpoints.push(Endpoint { channel: dial(&address)?, address });
            }
        }
        match endpoints.len() {
            0 => Err(ConnectError::NoEndpoints),
            got if got > ENDPOINTS_MAX => {
                Err(ConnectError::TooManyEndpoints { got, max: ENDPOINTS_MAX })
            }
            _ => Ok(Self { dial, known: Mutex::new(Known { endpoints, preferred: 0 }) }),
        }
    }

    /// The endpoint that answered last; at first the first.
    pub(crate) fn preferred(&self) -> Endpoint {
        let known = self.known();
        known.endpoints[known.preferred].clone()
    }

    /// The endpoint after the one at the address, round and round.
    pub(crate) fn after(&self, address: &str) -> Endpoint {
        let known = self.known();
        let next = known.position(address).map_or(0, |at| (at + 1) % known.endpoints.len());
        known.endpoints[next].clone()
    }

    /// The endpoint at an address, learned if need be; `None` when it cannot be dialled or when
    /// there are too many.
    pub(crate) fn learn(&self, address: &str) -> Option<Endpoint> {
        let address = normal(address).ok()?;
        let mut known = self.known();
        if let Some(at) = known.position(&address) {
            return Some(known.endpoints[at].clone());
        }
        if known.endpoints.len() == ENDPOINTS_MAX {
            return None;
        }
        let endpoint = Endpoint { channel: (self.dial)(&address).ok()?, address };
        known.endpoints.push(endpoint.clone());
        Some(endpoint)
    }

    /// Remembers that this endpoint answered.
    pub(crate) fn prefer(&self, address: &str) {
        let mut known = self.known();
        if let Some(at) = known.position(address) {
            known.preferred = at;
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.known().endpoints.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.known().endpoints.len()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one push or one assignment, so a panic cannot have left it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn position(&self, address: &str) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.address == address)
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
    Box::new(move |address| {
        let dialled = Dialled::from_shared(address.to_owned())
            .map_err(|reason| bad(address, &reason.to_string()))?;
        Ok(dialled
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(options.keep_alive_interval)
            .keep_alive_timeout(options.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .connect_lazy())
    })
}

/// One spelling for each address: with a scheme, without a slash at the end.
fn normal(address: &str) -> Result<String, ConnectError> {
    let host = match address.trim().split_once("://") {
        None => address.trim(),
        Some(("http", host)) => host,
        Some((scheme, _)) => {
            return Err(bad(address, &format!("the scheme {scheme} is not spoken")));
        }
    };
    let host = host.trim_end_matches('/');
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) || host.contains(['/', ' ', '?']) {
        return Err(bad(address, "there is no host with a port"));
    }
    Ok(format!("http://{host}"))
}

fn bad(address: &str, reason: &str) -> ConnectError {
    ConnectError::Address { address: address.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn pool(addresses: &[&str]) -> Result<Pool, ConnectError> {
        Pool::new(addresses, dial(&Options::default()))
    }

    #[tokio::test]
    async fn one_address_in_three_spellings_is_one_endpoint() {
        let pool = pool(&["127.0.0.1:1", "http://127.0.0.1:1", " http://127.0.0.1:1/ "]).unwrap();
        assert_eq!(pool.len(), 1);
        assert_eq!(pool.preferred().address, "http://127.0.0.1:1");
    }

    #[tokio::test]
    async fn endpoints_are_asked_round_and_round_from_the_preferred() {
        let pool = pool(&["a:1", "b:1", "c:1"]).unwrap();
        pool.prefer("http://b:1");
        let mut address = pool.preferred().address;
        let mut walk = Vec::new();
        for _ in 0..4 {
            walk.push(address.clone());
            address = pool.after(&address).address;
        }
        assert_eq!(walk, ["http://b:1", "http://c:1", "http://a:1", "http://b:1"]);
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
}
