//! Clients behind nginx, with the configuration that is shipped, while the leader is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener as Bound;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atelier_peer::config::{Config, Member};
use atelier_peer::peer::{Listeners, Outside, Peer};

use crate::python_with;
use crate::tools::{IMPORTS, PACKAGES, painter};

/// Tells this program to be a peer: its id, its directory, its HTTP port, and all gRPC ports.
const BE_A_PEER: &str = "TEST_BE_A_PEER";
/// The name of the test that is one.
const PEER_TEST: &str = "failover::is_a_peer_where_it_is_told_to";
/// For a peer to start, and to be led again; generous, since the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// A process that ends with the test.
struct Process(Child);

/// The same of nginx, which ends its workers when it is asked to end, and not when it is killed.
struct Nginx(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.0.id().try_into().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// A peer in a process of its own, so that it can be killed.
#[tokio::test(flavor = "multi_thread")]
async fn is_a_peer_where_it_is_told_to() {
    let Ok(told) = std::env::var(BE_A_PEER) else { return };
    let words: Vec<&str> = told.split_whitespace().collect();
    let node: u64 = words[0].parse().unwrap();
    let address = |port: &str| format!("127.0.0.1:{port}");
    let member =
        |(id, port): (u64, &&str)| Member { id, address: format!("http://{}", address(port)) };
    let peers: Vec<Member> = (1..).zip(&words[3..]).map(member).collect();
    let mut config = Config { node, data: words[1].into(), peers, ..Config::default() };
    config.listen.http = address(words[2]).parse().unwrap();
    config.listen.grpc = address(words[2 + node as usize]).parse().unwrap();
    let listeners = Listeners::bind(&config).await.unwrap();
    let outside = Outside::open(&config, Some(painter())).await.unwrap();
    let _peer = Peer::start(&config, outside, Some(listeners)).await.unwrap();
    std::future::pending::<()>().await;
}

fn ports(count: usize) -> Vec<u16> {
    let bound: Vec<Bound> = (0..count).map(|_| Bound::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|one| one.local_addr().unwrap().port()).collect()
}

fn peer(node: usize, directory: &Path, http: u16, grpc: &[u16]) -> Process {
    let data = directory.join(node.to_string());
    let ports: Vec<String> = grpc.iter().map(u16::to_string).collect();
    let told = format!("{node} {} {http} {}", data.display(), ports.join(" "));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", PEER_TEST, "--nocapture"]).env(BE_A_PEER, told);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    let call = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The index of the peer that leads, as one of them says.
fn leader(http: &[u16]) -> usize {
    let told = get(http[0], "/api/v1/cluster").unwrap();
    let number = told.split("\"leader\":").find_map(|rest| rest.split(',').next()?.parse().ok());
    let number: usize = number.unwrap();
    number - 1
}

fn nginx(directory: &Path, http: &[u16], front: u16) -> Option<Nginx> {
    let places = ["nginx", "/usr/sbin/nginx"].map(PathBuf::from);
    let runs = |nginx: &&PathBuf| Command::new(nginx).arg("-v").output().is_ok();
    let nginx = places.iter().find(runs)?;
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx.conf");
    let mut text = std::fs::read_to_string(shipped).unwrap();
    for (port, own) in [7860, 7870, 7880].iter().zip(http).chain([(&7800, &front)]) {
        text = text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{own}"));
    }
    text = text.replace("/tmp/", &format!("{}/", directory.display()));
    let conf = directory.join("nginx.conf");
    std::fs::write(&conf, text).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-c").arg(&conf).stdout(Stdio::null()).stderr(Stdio::null());
    Some(Nginx(command.spawn().unwrap()))
}

#[test]
fn every_client_behind_nginx_gets_its_picture_while_the_leader_is_killed() {
    let Some(python) = python_with("venv-http", IMPORTS, &PACKAGES) else {
        println!("skipped: no python3 with {PACKAGES:?} here, and pip could not install them");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let ports = ports(7);
    let (http, grpc, front) = (&ports[..3], &ports[3..6], ports[6]);
    let Some(_nginx) = nginx(directory.path(), http, front) else {
        println!("skipped: nginx is not installed");
        return;
    };
    let mut peers: Vec<Process> =
        (0..3).map(|at| peer(at + 1, directory.path(), http[at], grpc)).collect();
    let is_ready =
        |port: &u16| get(*port, "/readyz").is_some_and(|told| told.starts_with("HTTP/1.1 200"));
    wait_until("every peer is ready", || http.iter().all(is_ready));

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/failover.py");
    let mut command = Command::new(python);
    command.arg(script).arg(format!("http://127.0.0.1:{front}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut clients = Process(command.spawn().unwrap());
    let mut told = BufReader::new(clients.0.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    if line == "waiting\n" {
        drop(peers.remove(leader(http)));
        clients.0.stdin.take().unwrap().write_all(b"killed\n").unwrap();
    }
    told.read_to_string(&mut line).unwrap();
    let mut errors = String::new();
    clients.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(line, "waiting\ndone\n", "{errors}");
}
