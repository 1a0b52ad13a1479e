//! Addresses of members: read as strictly as the cluster does, compared by where they lead.

use std::net::Ipv6Addr;

/// Where an address leads: two spellings of one place are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// `None` for what is no address of a member.
    pub(super) fn of(address: &str) -> Option<Self> {
        let (host, port) = split(address)?;
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match v6.and_then(|v6| v6.parse::<Ipv6Addr>().ok()) {
            Some(v6) => v6.to_string(),
            // Names differ in nothing by their case, nor by the dot of the root.
            None => host.trim_end_matches('.').to_ascii_lowercase(),
        };
        Some(Self { host, port })
    }
}

/// Reads the address of a member as strictly as the cluster does.
pub(super) fn address(text: &str) -> Result<String, String> {
    if split(text).is_some() {
        return Ok(text.to_owned());
    }
    let bare = text.trim_end_matches('/');
    Err(match split(bare) {
        Some(_) => format!("expected no slash at the end: {bare}"),
        None => "expected http://host:port".to_owned(),
    })
}

/// Host and port of an address.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.strip_prefix("http://")?.rsplit_once(':')?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    // A sign or a zero in front would be another spelling of the same port.
    let port = port.parse::<u16>().ok().filter(|read| *read > 0 && read.to_string() == port)?;
    host_fits.then_some((host, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_member_is_read_strictly() {
        for good in ["http://127.0.0.1:7861", "http://[::1]:1", "http://peer-4.lan:65535"] {
            assert_eq!(address(good).unwrap(), good);
        }
        for bad in [
            "",
            "127.0.0.1:1",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://:1",
            "http://a:1/",
            "http://a:+1",
            "http://a:01",
        ] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
        assert!(address("http://a:1/").unwrap_err().ends_with("http://a:1"));
    }

    #[test]
    fn spellings_of_one_place_are_equal() {
        let same = |one, other| Place::of(one).unwrap() == Place::of(other).unwrap();
        assert!(same("http://Peer-1.lan:1", "http://peer-1.LAN.:1"));
        assert!(same("http://[::1]:1", "http://[0:0:0:0:0:0:0:1]:1"));
        assert!(!same("http://a:1", "http://a:2"));
        assert!(!same("http://a:1", "http://b:1"));
    }
}
