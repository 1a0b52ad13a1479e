//! TLS against a real server, with certificates made for the test.

use std::sync::Arc;

use atelier_client::{Client, ConnectError, Error, Options, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::support::{Peer, World, quick, wanted};

/// The name that the peers' certificates bear; nobody resolves it.
const DOMAIN: &str = "peers.atelier.test";

/// An authority, and what it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// A certificate for a name, and its key.
    fn vouch(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

/// A peer that only speaks with clients of this authority.
fn peer(authority: &Authority) -> Peer {
    let (certificate, key) = authority.vouch(DOMAIN);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    Peer::start_with(
        1,
        "127.0.0.1:0".parse().unwrap(),
        Arc::<std::sync::Mutex<World>>::default(),
        Some(tls),
    )
}

fn options(authority: &Authority, identity: Option<(Vec<u8>, Vec<u8>)>) -> Options {
    let tls = Tls { ca: authority.pem(), identity, domain: Some(DOMAIN.to_owned()) };
    Options { tls: Some(tls), retries_max: 2, ..quick() }
}

#[tokio::test]
async fn a_client_with_a_certificate_is_served_over_tls() {
    let authority = Authority::new();
    let peer = peer(&authority);
    let options = options(&authority, Some(authority.vouch("client")));
    // The scheme of an address does not decide: with TLS nothing goes out plain.
    for address in [peer.address.clone(), peer.address.replace("http://", "https://")] {
        let client = Client::connect([address], options.clone()).unwrap();
        client.submit(&wanted()).await.unwrap();
    }
    assert_eq!(peer.calls("submit").len(), 2);
}

#[tokio::test]
async fn who_cannot_prove_itself_is_not_spoken_with() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let peer = peer(&authority);
    let without = options(&authority, None);
    let forged = options(&authority, Some(stranger.vouch("client")));
    let other_ca = options(&stranger, Some(authority.vouch("client")));
    let plain = Options { retries_max: 2, ..quick() };
    for options in [without, forged, other_ca, plain] {
        let client = Client::connect([&peer.address], options).unwrap();
        let error = client.submit(&wanted()).await.unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { .. } | Error::UnknownOutcome { .. }),
            "{error}"
        );
    }
    assert_eq!(peer.calls("submit").len(), 0);
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_at_once() {
    let authority = Authority::new();
    let broken = (b"no certificate".to_vec(), b"no key".to_vec());
    let options = options(&authority, Some(broken));
    let error = Client::connect(["127.0.0.1:1"], options).unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}
