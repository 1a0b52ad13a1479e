//! Prints what a large state costs: commands with an empty and a full queue, places, memory,
//! snapshots. `cargo run --release -p atelier-state --example scale`.

use atelier_state::{
    ArtifactRef, Assign, Command, Complete, Digest, FencingToken, JobId, LogIndex, NodeId,
    RaiseFeatures, RegisterNode, SetSettings, SettingChange, SettingValue, State, Submit, place,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const WAITING: u128 = 100_000;
const RETAINED: u128 = 1_000_000;
const CYCLES: u128 = 20_000;
/// As many commands as share an entry; the view of the one before is alive meanwhile.
const ENTRY: u128 = 256;

fn main() {
    let empty = cycles(&mut raised(), 1);
    let mut full = raised();
    (1..=WAITING).for_each(|number| submit(&mut full, number, number));
    let busy = cycles(&mut full, WAITING + 1);
    println!("ns a command          submit  assign  complete");
    println!("an empty queue      {}", row(empty));
    println!("{WAITING} jobs wait   {}", row(busy));
    let ratios: Vec<String> =
        empty.iter().zip(busy).map(|(one, other)| format!("{:8.2}", ratio(other, *one))).collect();
    println!("ratio               {}", ratios.concat());
    positions(&full);
    drop(full);
    retained();
}

fn positions(state: &State) {
    let alive = BTreeSet::from([NodeId(1)]);
    let begun = Instant::now();
    (0..100).for_each(|_| assert_eq!(place(state, &alive, 64).len(), 64));
    println!("place 64 of {WAITING}: {:?}", begun.elapsed() / 100);
    let jobs: Vec<JobId> = state.queued().map(|(job, _)| *job).step_by(997).collect();
    let begun = Instant::now();
    jobs.iter().for_each(|job| assert!(state.position(*job).is_some()));
    println!("position among {WAITING}: {:?}", begun.elapsed() / jobs.len() as u32);
}

fn retained() {
    let before = resident_bytes();
    let mut state = raised();
    for number in 1..=RETAINED {
        submit(&mut state, number, number);
        assign(&mut state, number);
        complete(&mut state, number);
    }
    let bytes = resident_bytes().saturating_sub(before);
    println!("{RETAINED} retained: {} bytes a job resident", bytes / RETAINED as u64);
    let (digest, took) = timed(|| state.digest());
    println!("digest: {took:?}");
    let (snapshot, took) = timed(|| state.to_snapshot());
    println!("to_snapshot: {took:?}");
    drop(state);
    let (state, took) = timed(|| State::from_snapshot(snapshot).expect("it was made here"));
    println!("from_snapshot: {took:?}");
    assert_eq!(state.digest(), digest);
}

/// Measures submit, assign and complete; the queue is as long afterwards as before.
fn cycles(state: &mut State, from: u128) -> [Duration; 3] {
    let mut took = [Duration::ZERO; 3];
    for first in (from..from + CYCLES).step_by(ENTRY as usize) {
        let numbers = || first..(first + ENTRY).min(from + CYCLES);
        let view = state.clone();
        let begun = Instant::now();
        numbers().for_each(|number| submit(state, number, number));
        took[0] += begun.elapsed();
        drop(view);
        let jobs: Vec<JobId> =
            state.queued().map(|(job, _)| *job).take(numbers().count()).collect();
        // Slots are few, so leases come and go one by one.
        for job in jobs {
            let view = state.clone();
            let begun = Instant::now();
            assign(state, job.0);
            took[1] += begun.elapsed();
            let begun = Instant::now();
            complete(state, job.0);
            took[2] += begun.elapsed();
            drop(view);
        }
    }
    took.map(|it| it / u32::try_from(CYCLES).expect("it is small"))
}

fn raised() -> State {
    let mut state = State::new();
    apply(&mut state, &Command::RaiseFeatures(RaiseFeatures { level: 2 }));
    let change = |key: &str, number| SettingChange {
        key: key.to_owned(),
        value: Some(SettingValue::Number(number)),
    };
    let changes = vec![change("queue.jobs_max", 500_000), change("queue.weight.tenant 7", 3)];
    let (expected_version, author) = (0, Default::default());
    apply(&mut state, &Command::SetSettings(SetSettings { expected_version, changes, author }));
    let register = RegisterNode {
        node: NodeId(1),
        address: "http://10.0.0.1:7861".to_owned(),
        incarnation: 1,
        slots: 64,
        class: "flex cpu avx512".to_owned(),
        model: "toy".to_owned(),
        witness: false,
    };
    apply(&mut state, &Command::RegisterNode(register));
    state
}

fn submit(state: &mut State, number: u128, random: u128) {
    let prompt = "a red fox in the snow, early light, 35 mm, soft focus";
    let parameters = format!(
        "{{\"prompt\":\"{prompt} {number}\",\"width\":512,\"height\":512,\"steps\":8,\"seed\":7}}"
    );
    let submit = Submit {
        job: JobId(number),
        tenant: format!("tenant {}", random % 100).into(),
        idempotency_key: Some(format!("order {number:020}").into()),
        priority: (random % 10) as u8,
        kind: "text_to_image/v1".into(),
        parameters: parameters.into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        submitted_ms: 1_763_755_200_000,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    };
    apply(state, &Command::Submit(submit));
}

fn assign(state: &mut State, number: u128) {
    let assign = Assign { job: JobId(number), node: NodeId(1), incarnation: 1 };
    apply(state, &Command::Assign(assign));
}

fn complete(state: &mut State, number: u128) {
    let artifact = ArtifactRef {
        digest: Digest(blake(number)),
        bytes: 300_000,
        media_type: "image/png".to_owned(),
        holders: vec![NodeId(1), NodeId(2)],
    };
    let (token, finished_ms) = (FencingToken(state.applied().0), 1_763_755_260_000);
    let job = JobId(number);
    apply(
        state,
        &Command::Complete(Complete { job, token, artifacts: vec![artifact], finished_ms }),
    );
}

fn blake(number: u128) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    bytes[..16].copy_from_slice(&mixed.to_be_bytes());
    bytes
}

fn apply(state: &mut State, command: &Command) {
    let index = LogIndex(state.applied().0 + 1);
    let reply = state.apply(index, command);
    assert!(!matches!(reply, atelier_state::Reply::Refused(_)), "{reply:?} to {command:?}");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}

fn row(took: [Duration; 3]) -> String {
    took.map(|it| format!("{:8}", it.as_nanos())).concat()
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// Returns what the process holds in memory; 0 where there is no /proc.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}
