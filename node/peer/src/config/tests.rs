//! What is read from where, and the exact text of what does not fit.

use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let flag = |(key, value): &(&str, &str)| Setting {
        flag: format!("--set {key}"),
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    Sources {
        file: Some(("atelier.toml".to_owned(), file.to_owned())),
        environment: environment.iter().map(pair).collect(),
        flags: flags.iter().map(flag).collect(),
    }
}

/// A file that has what is required, then the given lines.
fn with_required(lines: &str) -> String {
    format!("node = 1\nengine.enabled = false\n{lines}\n")
}

#[track_caller]
fn check(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)], expect: &[&str]) {
    let faults = Config::load(&sources(file, environment, flags)).expect_err("must be refused");
    let told: Vec<String> = faults.0.iter().map(Fault::to_string).collect();
    assert_eq!(told, expect);
}

#[test]
fn an_empty_file_lacks_only_what_is_never_guessed() {
    check(
        "",
        &[],
        &[],
        &[
            "node: expected an id from 1 to 18446744073709551615, got nothing",
            "engine.model: expected a model directory, or engine.enabled = false for a peer that only \
         votes, got nothing",
        ],
    );
}

#[test]
fn each_fault_names_key_expected_got_and_source() {
    let file = |lines: &str| with_required(lines);
    check(
        &file("raft.heartbeat_ms = \"fast\""),
        &[],
        &[],
        &["raft.heartbeat_ms: expected a whole number from 10 to 5000 ms, got `\"fast\"` (from \
         atelier.toml)"],
    );
    check(
        &file("raft.heartbeat_ms = 9"),
        &[],
        &[],
        &[
            "raft.heartbeat_ms: expected a whole number from 10 to 5000 ms, got `9` (from atelier.toml)",
        ],
    );
    check(
        &file("raft.hearbeat_ms = 100"),
        &[],
        &[],
        &["raft.hearbeat_ms: unknown key; the nearest known one is raft.heartbeat_ms (from \
         atelier.toml)"],
    );
    check(
        &file("raft = 3"),
        &[],
        &[],
        &["raft: expected a table [raft], got `3` (from atelier.toml)"],
    );
    check(
        &file("join = 1"),
        &[],
        &[],
        &["join: expected true or false, got `1` (from atelier.toml)"],
    );
    check(
        &file("listen.http = \"localhost\""),
        &[],
        &[],
        &["listen.http: expected an IP address and a port, such as 127.0.0.1:7860, got \
         `\"localhost\"` (from atelier.toml)"],
    );
}

#[test]
fn faults_of_environment_and_flags_name_where_they_are_from() {
    let required = with_required("");
    check(
        &required,
        &[("ATELIER_RAFT_HEARTBEAT_MS", "1e2")],
        &[],
        &["raft.heartbeat_ms: expected a whole number from 10 to 5000 ms, got `1e2` (from \
         ATELIER_RAFT_HEARTBEAT_MS)"],
    );
    check(
        &required,
        &[("ATELIER_HEARTBEAT_MS", "100")],
        &[],
        &["ATELIER_HEARTBEAT_MS: unknown variable; the nearest known one is \
         ATELIER_RAFT_HEARTBEAT_MS"],
    );
    check(
        &required,
        &[],
        &[("engine.backend", "rocm")],
        &["engine.backend: expected auto, cpu or cuda, got `rocm` (from --set engine.backend)"],
    );
    check(
        &required,
        &[],
        &[("engine.slot", "2")],
        &[
            "engine.slot: unknown key; the nearest known one is engine.slots (from --set engine.slot)",
        ],
    );
    check(
        &required,
        &[],
        &[("listen.advertise", "10.0.0.1:7861")],
        &[
            "listen.advertise: expected an address http://host:port, got `10.0.0.1:7861` (from --set \
         listen.advertise)",
        ],
    );
}

#[test]
fn what_no_field_can_say_alone_is_told_too() {
    let file = |lines: &str| with_required(lines);
    check(
        &file("raft.election_ms_min = 200"),
        &[],
        &[],
        &["raft.election_ms_min: expected at least three times raft.heartbeat_ms, got 200"],
    );
    check(
        &file("raft.election_ms_max = 250"),
        &[],
        &[],
        &["raft.election_ms_max: expected more than raft.election_ms_min, got 250"],
    );
    check(
        &file("jobs.lease_ms = 400"),
        &[],
        &[],
        &["jobs.lease_ms: expected at least raft.election_ms_max, got 400"],
    );
    check(
        &file("listen.grpc = \"0.0.0.0:7861\""),
        &[],
        &[],
        &[
            "listen.advertise: expected an address that others can dial, since listen.grpc is every \
         interface, got nothing",
        ],
    );
    check(
        &file("listen.advertise = \"http://0.0.0.0:7861\""),
        &[],
        &[],
        &["listen.advertise: expected an address that others can dial, which every interface is \
         not, got http://0.0.0.0:7861"],
    );
    check(
        &file("cluster_token = \"hunter2\""),
        &[],
        &[],
        &[
            "cluster_token: expected at least 16 printable characters without spaces, or nothing, got \
         another, which is not shown (from atelier.toml)",
        ],
    );
    check(
        &file("peers = [{ id = 2, address = \"http://b:7861\" }]"),
        &[],
        &[],
        &["peers: expected an entry of this node (1), or join = true, got 2=http://b:7861"],
    );
    check(
        &file("peers = [{ id = 1, address = \"http://a:1\", zone = \"z\" }]"),
        &[],
        &[],
        &["peers: expected a list of { id = 1, address = \"http://host:port\" }, at most 64; \
         elsewhere than in the file 1=http://host:port,2=http://host:port, got `[{ address = \
         \"http://a:1\", id = 1, zone = \"z\" }]` (from atelier.toml)"],
    );
    check(
        &required_with_twins(),
        &[],
        &[],
        &["peers: expected each id and each address once, got 1=http://a:7861,1=http://b:7861"],
    );
}

fn required_with_twins() -> String {
    with_required(
        "[[peers]]\nid = 1\naddress = \"http://a:7861\"\n[[peers]]\nid = 1\naddress = \
         \"http://b:7861\"",
    )
}

#[test]
fn all_faults_of_all_sources_are_told_at_once() {
    let file = "nod = 1\nengine.enabled = \"no\"\n";
    let environment =
        [("ATELIER_CLUSTER", "two words"), ("PATH", "/bin"), ("ATELIER_ENDPOINTS", "x")];
    check(
        file,
        &environment,
        &[("raft.entries_kept", "-1")],
        &[
            "engine.enabled: expected true or false, got `\"no\"` (from atelier.toml)",
            "nod: unknown key; the nearest known one is node (from atelier.toml)",
            "cluster: expected 1 to 64 letters, digits, `-` or `_`, got `two words` (from \
         ATELIER_CLUSTER)",
            "raft.entries_kept: expected a whole number from 0 to 10000000 entries, got `-1` (from \
         --set raft.entries_kept)",
            "node: expected an id from 1 to 18446744073709551615, got nothing",
            "engine.model: expected a model directory, or engine.enabled = false for a peer that only \
         votes, got nothing",
        ],
    );
}

#[test]
fn a_file_that_is_not_toml_is_one_fault_among_the_others() {
    let faults = Config::load(&sources("node = = 1", &[], &[("engine.enabled", "false")]))
        .expect_err("must be refused");
    assert!(faults.0[0].to_string().starts_with("atelier.toml: not TOML: "), "{faults}");
    assert_eq!(faults.0.len(), 2);
    assert!(faults.to_string().starts_with("the configuration has 2 faults\n  "));
}

#[test]
fn flags_outrank_the_environment_which_outranks_the_file() {
    let file = with_required("jobs.lease_ms = 4000\njobs.attempts_max = 4\ncluster = \"file\"");
    let environment = [("ATELIER_JOBS_LEASE_MS", "5000"), ("ATELIER_JOBS_ATTEMPTS_MAX", "5")];
    let config = Config::load(&sources(&file, &environment, &[("jobs.lease_ms", "6000")]))
        .expect("all of it is fine");
    assert_eq!(config.jobs.lease_ms, 6_000);
    assert_eq!(config.jobs.attempts_max, 5);
    assert_eq!(config.cluster, "file");
}

#[test]
fn peers_are_read_alike_from_file_and_environment() {
    let of_file = with_required(
        "peers = [{ id = 1, address = \"http://a:7861\" }, { id = 2, address = \"http://b:7861\" }]",
    );
    let of_file = Config::load(&sources(&of_file, &[], &[])).expect("fine");
    let variable = [("ATELIER_PEERS", "1=http://a:7861, 2=http://b:7861")];
    let of_environment = Config::load(&sources(&with_required(""), &variable, &[])).expect("fine");
    assert_eq!(of_file.peers.len(), 2);
    assert_eq!(of_file, of_environment);
    assert_eq!(of_file.advertised(), "http://a:7861");
}

#[test]
fn the_clients_name_of_the_model_is_known_and_outranked_by_the_full_one() {
    let model = |environment: &[(&str, &str)]| {
        let config = Config::load(&sources("node = 1", environment, &[])).expect("fine");
        config.engine.model.display().to_string()
    };
    assert_eq!(model(&[("ATELIER_MODEL", "/short")]), "/short");
    for order in [[0, 1], [1, 0]] {
        let both = [("ATELIER_MODEL", "/short"), ("ATELIER_ENGINE_MODEL", "/full")];
        assert_eq!(model(&order.map(|i| both[i])), "/full");
    }
}

#[test]
fn a_peer_without_a_list_is_a_cluster_of_itself() {
    let config = Config::load(&sources(&with_required(""), &[], &[])).expect("fine");
    let alone = Member { id: 1, address: "http://127.0.0.1:7861".to_owned() };
    assert_eq!(config.initial_members(), [alone]);
}

#[test]
fn the_printed_file_reads_back_as_the_same_configuration() {
    let required = with_required(
        "data = \"with \\\"quotes\\\"\"\npeers = [{ id = 1, address = \"http://127.0.0.1:7861\" }]",
    );
    let config = Config::load(&sources(&required, &[], &[])).expect("fine");
    let printed = config.to_commented_toml();
    let again = Config::load(&sources(&printed, &[], &[])).expect(&printed);
    assert_eq!(config, again);
}

#[test]
fn every_default_is_within_its_own_range() {
    let defaults = Config::default().to_commented_toml().replacen("node = 0", "node = 1", 1);
    let printed = defaults.replacen("enabled = true", "enabled = false", 1);
    assert!(Config::load(&sources(&printed, &[], &[])).is_ok(), "{printed}");
}

#[test]
fn addresses_are_host_and_port() {
    let address = |text| fields::address_of(text).is_some();
    for fits in ["http://a:1", "http://10.0.0.1:7861", "http://[::1]:7861", "http://a-b.c_d:65535"]
    {
        assert!(address(fits), "{fits}");
    }
    for unfit in [
        "",
        "a:1",
        "https://a:1",
        "http://a",
        "http://a:0",
        "http://a:65536",
        "http://:1",
        "http://a:1/",
        "http://::1:7861",
        "http://a b:1",
    ] {
        assert!(!address(unfit), "{unfit}");
    }
}
