//! Prints what a large state costs: commands with an empty and a full queue, places, memory,
//! snapshots. `cargo run --release -p atelier-state --example scale`.

use atelier_state::{
    ArtifactRef, Assign, Command, Complete, Digest, FencingToken, JobId, LogIndex, NodeId,
    RaiseFeatures, RegisterNode, SetSettings, SettingChange, SettingValue, State, Submit, place,
};
use std::collections::BTreeSet;
use std::time::Duration;

const WAITING: u128 = 100_000;
const RETAINED: u128 = 1_000_000;
const CYCLES: u128 = 20_000;
/// As many commands as share an entry; the view of the one before is alive meanwhile.
const ENTRY: u128 = 256;
const SLOTS: u32 = 64;

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
    let ((), took) = timed(|| {
        (0..100).for_each(|_| assert_eq!(place(state, &alive, 64).len(), 64));
    });
    println!("place 64 of {WAITING}: {:?}", took / 100);
    let jobs: Vec<JobId> = state.queued().map(|(job, _)| *job).step_by(997).collect();
    let ((), took) = timed(|| {
        jobs.iter().for_each(|job| assert!(state.position(*job).is_some()));
    });
    println!("position among {WAITING}: {:?}", took / jobs.len() as u32);
}

fn retained() {
    let before = resident_bytes();
    let mut state = raised();
    for number in 1..=RETAINED {
        submit(&mut state, number, number);
        assign(&mut state, number);
        let token = state.applied().0;
        complete(&mut state, number, token);
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
        took[0] += timed(|| numbers().for_each(|number| submit(state, number, number))).1;
        drop(view);
        let jobs: Vec<JobId> =
            state.queued().map(|(job, _)| *job).take(numbers().count()).collect();
        for jobs in jobs.chunks(SLOTS as usize) {
            let view = state.clone();
            let tokens: Vec<u64> =
                (1..).map(|more| state.applied().0 + more).take(jobs.len()).collect();
            took[1] += timed(|| jobs.iter().for_each(|job| assign(state, job.0))).1;
            let leased = jobs.iter().zip(tokens);
            took[2] += timed(|| leased.for_each(|(job, token)| complete(state, job.0, token))).1;
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
        slots: SLOTS,
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

fn complete(state: &mut State, number: u128, token: u64) {
    let artifact = ArtifactRef {
        digest: Digest(blake(number)),
        bytes: 300_000,
        media_type: "image/png".to_owned(),
        holders: vec![NodeId(1), NodeId(2)],
    };
    let (token, finished_ms) = (FencingToken(token), 1_763_755_260_000);
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

/// Measures the time on the processor, which others that want it do not lengthen.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = on_cpu();
    let done = work();
    (done, on_cpu().saturating_sub(begun))
}

/// Returns how long this thread has run; 0 where there is no /proc.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
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
