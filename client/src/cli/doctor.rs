//! `atelier doctor`: looks for what is wrong with a cluster, and says what to do.
//!
//! Two accounts are put side by side: what each peer finds out about itself and its way to the
//! others, and what is seen from here: round trips, clocks, versions, models, the arithmetic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use atelier_client::{
    Answer, Client, Error, Examination, Finding, FindingLevel, Member, NodeId, Status, Survey,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::args::DoctorArgs;
use super::cluster::reason;
use super::explain::{Unformed, where_to_look};
use super::failure::{Exit, Failure};
use super::generate::check_output;
use super::json::{self, Body, CheckView, DoctorView, Document};
use super::output::{dash, note};
use super::quorum::{Voters, zone_warning};
use super::{Context, PATIENCE_ASK, files, queue};

/// A peer examines itself within this: it writes to its disk and dials every other one.
const PATIENCE_EXAMINE: Duration = Duration::from_secs(15);
/// Clocks further apart than this confuse people; nothing else reads them.
const SKEW_WARN_MS: u64 = 1_000;
/// A round trip above this is no machine of the same region.
const ROUND_TRIP_WARN: Duration = Duration::from_millis(200);

/// Ends of names that promise a packed archive.
const PACKED: [&str; 7] = ["gz", "tgz", "bz2", "xz", "zst", "zip", "7z"];

/// One peer as it was found from here.
struct Visit {
    node: u64,
    round_trip: Duration,
    /// Its clock against ours, where it is ahead; both in milliseconds.
    skew_ms: i64,
    examined: Result<Examination, String>,
}

pub(super) async fn run(context: &Context, args: DoctorArgs) -> Result<Exit, Failure> {
    // Before the peers are examined, which takes its time.
    let bundle = args.bundle.as_deref().map(Bundle::begin).transpose()?;
    let client = context.any_client(PATIENCE_ASK)?;
    let survey = client.survey().await;
    if survey.statuses().next().is_none() {
        let why = survey.answers.iter().filter_map(|one| one.status.as_ref().err());
        return Err(Failure::new(Exit::Usage, "no peer answers, so there is nothing to examine")
            .why(why.map(ToString::to_string).collect::<Vec<_>>())
            .hints(where_to_look(context)));
    }
    let mut places: Vec<(NodeId, &str)> =
        survey.members.iter().map(|member| (member.node, member.address.as_str())).collect();
    if places.is_empty() {
        // No member is known yet, so those who answer are looked at.
        let here = survey
            .answers
            .iter()
            .filter_map(|one| Some((one.status.as_ref().ok()?.node, one.address.as_str())));
        places = here.collect();
    }
    let visits = places.into_iter().map(|(node, address)| visit(context, node, address));
    let visits = join_all(visits).await;
    let paused = paused(context, &client, &survey).await;
    let checks = judge(&survey, paused, &visits);
    let level = checks.iter().map(|check| check.level).max_by_key(|word| severity(word));
    let view = DoctorView { level: level.unwrap_or(FindingLevel::Ok.word()), checks };
    let exit = match severity(view.level) {
        0 => Exit::Ok,
        1 => Exit::Failed,
        _ => Exit::Usage,
    };
    // The findings first: a bundle that cannot be written costs none of them.
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Doctor(view.clone())))?;
    } else {
        print(context, &view)?;
    }
    if let Some(bundle) = bundle {
        bundle.write(&view, &survey)?;
    }
    Ok(exit)
}

/// Says that no job is given out, since when and by whom.
async fn paused(context: &Context, client: &Client, survey: &Survey) -> Option<CheckView> {
    let newest = survey.statuses().max_by_key(|status| (status.term, status.applied_index))?;
    if !newest.paused {
        return None;
    }
    // Whoever answers will do, and no answer only costs these words.
    let history = client.settings_history().await.unwrap_or_default();
    let since = queue::paused_by(&history).map(|author| queue::authored(context.output, author));
    let found = match since {
        Some(since) => format!("paused {since}"),
        None => "paused; the history does not say since when".to_owned(),
    };
    let fix = "no job is given to anybody until `atelier queue resume`";
    Some(check(None, "queue", FindingLevel::Warn, found, fix))
}

async fn visit(context: &Context, node: NodeId, address: &str) -> Visit {
    let start = Instant::now();
    let mut visit = Visit {
        node,
        round_trip: Duration::ZERO,
        skew_ms: 0,
        examined: Err("it was not asked".to_owned()),
    };
    let client = match context.client_of(address, PATIENCE_EXAMINE) {
        Ok(client) => client,
        Err(failure) => {
            visit.examined = Err(reason(&failure));
            return visit;
        }
    };
    // The first call connects; the second one shows the way there and back.
    if let Err(error) = client.members().await {
        visit.examined = Err(reason(&Failure::from(error)));
        return visit;
    }
    let connected = Instant::now();
    let again = client.members().await;
    visit.round_trip = if again.is_ok() { connected.elapsed() } else { start.elapsed() };
    match client.examine().await {
        Ok(examination) => {
            // What it took to answer a small question, half of it on the way back.
            let returned_ms = now_ms().saturating_sub(half_ms(visit.round_trip));
            visit.skew_ms = i64::try_from(examination.wall_ms).unwrap_or(i64::MAX)
                - i64::try_from(returned_ms).unwrap_or(i64::MAX);
            visit.examined = Ok(examination);
        }
        Err(error) => visit.examined = Err(reason(&Failure::from(error))),
    }
    visit
}

fn half_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / 2).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that was found, the cluster first.
fn judge(survey: &Survey, paused: Option<CheckView>, visits: &[Visit]) -> Vec<CheckView> {
    let mut checks = of_the_cluster(survey);
    checks.extend(of_silent_endpoints(survey));
    checks.extend(paused);
    for visit in visits {
        of_a_peer(visit, &mut checks);
    }
    checks
}

/// Whether those who are there can decide; where nothing was ever decided, who is waited for.
fn quorum(survey: &Survey) -> CheckView {
    let voters = Voters::of(&survey.members);
    if let Some(unformed) = Unformed::of(survey).filter(|_| survey.leader().is_none()) {
        let found = unformed.words();
        return check(None, "quorum", FindingLevel::Fail, found, &unformed.next());
    }
    let spare = (voters.alive + voters.tolerates()).saturating_sub(voters.total);
    let found = format!(
        "{} of {} voters alive, {} must agree, {spare} more may fail",
        voters.alive,
        voters.total,
        voters.quorum()
    );
    let (level, fix) = match (voters.decides(), spare) {
        (false, _) => (
            FindingLevel::Fail,
            "start the voters that are down, or mend the network between them; one that is lost \
             for good: `atelier member replace`; a majority lost for good: `atelier cluster \
             recover`",
        ),
        (true, 0) => (
            FindingLevel::Warn,
            "the next failure stops the cluster: start what is down, or add and promote members",
        ),
        (true, _) => (FindingLevel::Ok, ""),
    };
    check(None, "quorum", level, found, fix)
}

/// Endpoints that do not answer and are no member's: those are visited.
fn of_silent_endpoints(survey: &Survey) -> Vec<CheckView> {
    let is_member = |address: &str| survey.members.iter().any(|member| member.address == address);
    let silent = |one: &Answer| {
        let why = one.status.as_ref().err().filter(|_| !is_member(&one.address))?;
        let found = match why {
            Error::Unavailable { tried, .. } if !tried.is_empty() => {
                tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            error => format!("{}: {error}", one.address),
        };
        let fix = "is its process running, and its gRPC port open to this machine?";
        Some(check(None, "answers", FindingLevel::Fail, found, fix))
    };
    survey.answers.iter().filter_map(silent).collect()
}

fn of_the_cluster(survey: &Survey) -> Vec<CheckView> {
    let check = |check: &str, level: FindingLevel, found: String, fix: &str| {
        self::check(None, check, level, found, fix)
    };
    let mut checks = vec![quorum(survey)];
    checks.push(match survey.leader() {
        Some(leader) => check("leader", FindingLevel::Ok, format!("node {leader} leads"), ""),
        None => check(
            "leader",
            FindingLevel::Fail,
            "no peer knows a leader".to_owned(),
            "see `quorum` above; an election takes a second",
        ),
    });
    if let Some(found) = zone_warning(&survey.members) {
        checks.push(check("zones", FindingLevel::Warn, found, "spread the voters over zones"));
    }
    let statuses: Vec<&Status> = survey.statuses().collect();
    let versions: BTreeSet<_> = statuses.iter().map(|one| one.version.as_str()).collect();
    let several = "finish the upgrade: restart the older ones under the newest version";
    checks.push(agreement("version", &versions, several));
    checks.push(models(&survey.members));
    if survey.consistent() == Some(false) {
        let found = "peers at the same entry have different states".to_owned();
        let fix = "keep all disks; `atelier cluster verify` says which peer differs";
        checks.push(check("state", FindingLevel::Fail, found, fix));
    }
    checks
}

/// Compares what the members draw from. Models of several names are a choice; one name for several
/// models is a mistake, since the same job then gives other pictures on other peers.
fn models(members: &[Member]) -> CheckView {
    let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.slots > 0) {
        nodes.entry(&member.model).or_default().push(member.node.to_string());
    }
    let names: BTreeSet<_> = nodes.keys().map(|model| model.split('@').next()).collect();
    let fix = "give every peer the same model directory";
    if names.len() == nodes.len() {
        return agreement("model", &nodes.into_keys().collect(), fix);
    }
    let each = nodes.iter().map(|(model, nodes)| format!("{model} on {}", nodes.join(", ")));
    let found = format!("the same name, other files: {}", each.collect::<Vec<_>>().join("; "));
    let fix = format!("{fix}, then restart those that differ");
    check(None, "model", FindingLevel::Fail, found, &fix)
}

fn agreement(name: &str, values: &BTreeSet<&str>, fix: &str) -> CheckView {
    let all = values.iter().copied().collect::<Vec<_>>().join(", ");
    match values.len() {
        0 => check(None, name, FindingLevel::Ok, "none is served".to_owned(), ""),
        1 => check(None, name, FindingLevel::Ok, format!("{all} everywhere"), ""),
        count => check(None, name, FindingLevel::Warn, format!("{count} of them: {all}"), fix),
    }
}

fn of_a_peer(visit: &Visit, checks: &mut Vec<CheckView>) {
    let node = Some(visit.node);
    let examination = match &visit.examined {
        Ok(examination) => examination,
        Err(why) => {
            let fix = "is its process running, and its gRPC port open to this machine?";
            checks.push(check(node, "answers", FindingLevel::Fail, why.clone(), fix));
            return;
        }
    };
    if examination.node != visit.node {
        let found = format!("node {} answers at its address", examination.node);
        let fix = "correct listen.advertise of both";
        checks.push(check(node, "answers", FindingLevel::Fail, found, fix));
        return;
    }
    checks.push(round_trip(visit, examination));
    let off = visit.skew_ms.unsigned_abs() > SKEW_WARN_MS;
    let level = if off { FindingLevel::Warn } else { FindingLevel::Ok };
    let found = format!("{:+} ms against this machine", visit.skew_ms);
    let fix = if off { "run a time service, such as chrony, on both" } else { "" };
    checks.push(check(node, "clock", level, found, fix));
    for finding in &examination.findings {
        let (level, found) = (finding.level, finding.found.clone());
        checks.push(check(node, &finding.check, level, found, &finding.fix));
    }
}

/// The way to a peer and back, as far as it can be told from a call that may wait for a leader.
fn round_trip(visit: &Visit, examination: &Examination) -> CheckView {
    let found = format!("{:.1} ms from here", visit.round_trip.as_secs_f64() * 1e3);
    let is_unled =
        |finding: &Finding| finding.check == "raft" && finding.level == FindingLevel::Fail;
    let (level, found, fix) = if visit.round_trip <= ROUND_TRIP_WARN {
        (FindingLevel::Ok, found, "")
    } else if examination.findings.iter().any(is_unled) {
        let found = format!("{found}: it waits for a leader before it answers, see `raft`");
        (FindingLevel::Ok, found, "")
    } else {
        let fix = "far away or loaded: raft.heartbeat_ms must be above it";
        (FindingLevel::Warn, found, fix)
    };
    check(Some(visit.node), "round trip", level, found, fix)
}

fn check(
    node: Option<u64>,
    check: &str,
    level: FindingLevel,
    found: String,
    fix: &str,
) -> CheckView {
    let fix = (!fix.is_empty()).then(|| fix.to_owned());
    CheckView { node, check: check.to_owned(), level: level.word(), found, fix }
}

/// 0 for ok, 1 for a warning, 2 for a failure; also the exit codes.
fn severity(word: &str) -> u8 {
    match word {
        "ok" => 0,
        "warn" => 1,
        _ => 2,
    }
}

fn print(context: &Context, view: &DoctorView) -> Result<(), Failure> {
    let row = |check: &CheckView| {
        let fix = dash(check.fix.as_ref());
        let place = check.node.map_or_else(|| "cluster".to_owned(), |node| format!("node {node}"));
        vec![check.level.to_owned(), place, check.check.clone(), check.found.clone(), fix]
    };
    let rows: Vec<_> = view.checks.iter().map(row).collect();
    context.output.table(&["level", "where", "check", "found", "what to do"], &rows)
}

/// An archive that is to be written. Beside its place first, so that it is there whole or not at all.
struct Bundle {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Bundle {
    /// Checks that it can be written.
    fn begin(path: &Path) -> Result<Self, Failure> {
        check_output(path)?;
        let packed = path.extension().and_then(|extension| extension.to_str());
        if let Some(packed) = packed.filter(|name| PACKED.contains(name)) {
            let what = format!("cannot write {}: the archive is not packed", path.display());
            return Err(Failure::new(Exit::Usage, what)
                .hint(format!("name a file that ends in .tar instead of .{packed}")));
        }
        let file = tempfile::Builder::new().prefix(".atelier-").tempfile_in(files::directory(path));
        let path = path.to_owned();
        match file {
            Ok(file) => Ok(Self { path, file }),
            // The error's own text names the temporary file, which tells nobody anything.
            Err(error) => Err(unwritten(&path, &std::io::Error::from(error.kind()))),
        }
    }

    fn write(self, view: &DoctorView, survey: &Survey) -> Result<(), Failure> {
        let Self { path, file } = self;
        fill(file.as_file(), view, survey)
            .and_then(|()| file.persist(&path).map_err(|failed| failed.error))
            .map_err(|error| unwritten(&path, &error))?;
        note(&format!("wrote {}", path.display()));
        Ok(())
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("the bundle was not written to {}: {error}", path.display());
    Failure::new(Exit::Failed, what).hint("name another place with --bundle FILE.tar")
}

/// Writes what a helper needs. Neither prompts nor pictures nor tokens are in any of it: what is
/// not asked for cannot leak.
fn fill(file: &std::fs::File, view: &DoctorView, survey: &Survey) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(file);
    let mut add = |name: &str, text: String| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("atelier/{name}"), text.as_bytes())
    };
    add("doctor.json", json::pretty(&Document::from(Body::Doctor(view.clone()))))?;
    let members = survey.members.iter().map(json::MemberView::from).collect();
    add("members.json", json::pretty(&Document::from(Body::Members { members })))?;
    let status = |one: &Status| {
        format!(
            "node {} of cluster {:?}, version {}, leader {}, term {}\n\
             log: last {}, committed {}, applied {}; feature level {}\n\
             jobs: {} queued, {} leased, {} terminal; paused: {}\nstate {}\n",
            one.node,
            one.cluster,
            one.version,
            dash(one.leader),
            one.term,
            one.last_log_index,
            one.commit_index,
            one.applied_index,
            one.features,
            one.queued,
            one.leased,
            one.terminal,
            one.paused,
            one.state_digest,
        )
    };
    let silent = survey.answers.iter().filter_map(|answer| {
        let error = answer.status.as_ref().err()?;
        Some(format!("{}: {error}\n", answer.address))
    });
    let statuses = survey.statuses().map(status);
    add("status.txt", statuses.chain(silent).collect::<Vec<_>>().join("\n"))?;
    add("version.txt", format!("atelier {}\n", env!("CARGO_PKG_VERSION")))?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(examined: Result<Examination, String>, skew_ms: i64) -> Visit {
        Visit { node: 2, round_trip: Duration::from_millis(3), skew_ms, examined }
    }

    fn examination(findings: Vec<Finding>) -> Examination {
        Examination { node: 2, findings, wall_ms: 0 }
    }

    fn told(visit: &Visit) -> Vec<(String, &'static str)> {
        let mut checks = Vec::new();
        of_a_peer(visit, &mut checks);
        checks.into_iter().map(|check| (check.check, check.level)).collect()
    }

    #[test]
    fn a_peer_is_judged_by_its_own_findings_and_by_what_is_seen_from_here() {
        let slow = Finding {
            check: "fsync".to_owned(),
            level: FindingLevel::Warn,
            found: "80 ms".to_owned(),
            fix: "a faster disk".to_owned(),
        };
        let pair = |check: &str, level| (check.to_owned(), level);
        assert_eq!(
            told(&visit(Ok(examination(vec![slow])), -1_500)),
            [pair("round trip", "ok"), pair("clock", "warn"), pair("fsync", "warn")]
        );
        assert_eq!(told(&visit(Err("refused".to_owned()), 0)), [pair("answers", "fail")]);
        let stopped = Finding {
            check: "raft".to_owned(),
            level: FindingLevel::Fail,
            found: "an older directory; keep it and `atelier member replace 2`".to_owned(),
            fix: String::new(),
        };
        let waits =
            Visit { round_trip: Duration::from_millis(500), ..visit(Err(String::new()), 0) };
        let check = round_trip(&waits, &examination(vec![stopped]));
        assert_eq!((check.level, check.fix), ("ok", None), "{}", check.found);
        assert_eq!(round_trip(&waits, &examination(Vec::new())).level, "warn");
        let other = Examination { node: 3, ..examination(Vec::new()) };
        assert_eq!(told(&visit(Ok(other), 0)), [pair("answers", "fail")]);
    }

    fn member(node: u64, model: &str) -> Member {
        Member {
            node,
            address: format!("http://peer-{node}:7861"),
            role: atelier_client::Role::Voter,
            leader: node == 1,
            alive: true,
            slots: 1,
            leases: 0,
            engine: String::new(),
            model: model.to_owned(),
            matched_index: None,
            witness: false,
            draining: false,
            labels: BTreeMap::new(),
            features: 2,
        }
    }

    #[test]
    fn one_name_for_several_models_is_a_failure_and_says_where() {
        let check = |all: &[&str]| {
            let members: Vec<_> =
                all.iter().enumerate().map(|(at, model)| member(at as u64 + 1, model)).collect();
            let CheckView { level, found, .. } = models(&members);
            (level, found)
        };
        assert_eq!(check(&["toy@a", "toy@a"]), ("ok", "toy@a everywhere".to_owned()));
        assert_eq!(check(&["toy@a", "real@a"]), ("warn", "2 of them: real@a, toy@a".to_owned()));
        let found = "the same name, other files: toy@a on 1, 3; toy@b on 2".to_owned();
        assert_eq!(check(&["toy@a", "toy@b", "toy@a"]), ("fail", found));
        let idle = Member { slots: 0, ..member(3, "") };
        assert_eq!(models(&[member(1, "toy@a"), idle]).level, "ok");
    }
}
