//! Every bound of the replicated state: who fills it, and what happens when it is full.

/// Highest feature level that this version understands; `RaiseFeatures` beyond it stops a peer.
/// 2 brought back-off, deadlines, settings and the trail, 3 the trail of changes of members and of the lead, 4 jobs with
/// guidance or a picture to begin from, of which the state knows the kind alone.
pub const FEATURES: u32 = 4;
/// The feature level of a cluster that was never raised.
pub const FEATURES_FIRST: u32 = 1;
/// Jobs that wait, at feature level 1. Filled by clients; at the bound `Submit` is refused.
pub const QUEUE_JOBS_MAX_FIRST: usize = 10_000;
/// Jobs that are remembered, at feature level 1; at the bound `Submit` is refused.
pub const JOBS_MAX_FIRST: usize = 40_000;
/// Jobs that wait: the most that the setting `queue.jobs_max` may be. Filled by clients; at the setting `Submit` is
/// refused and the gateway answers with Retry-After.
pub const QUEUE_JOBS_MAX: usize = 500_000;
/// Jobs that are remembered, terminal ones too. Filled by finished jobs; the janitor forgets the oldest terminal ones
/// above the setting `retention.jobs`, and at the bound `Submit` is refused.
pub const JOBS_MAX: usize = 1_600_000;
/// Terminal jobs that the janitor keeps at most: the most that the setting `retention.jobs` may be.
pub const JOBS_KEPT_MAX: usize = 1_000_000;
/// Bytes of the unfinished jobs, as `Job::bytes` counts them. Filled by clients; at the bound gateways refuse `Submit`
/// with Retry-After. It is passed by what was under way at that moment, and by the errors of attempts that fail later.
pub const UNFINISHED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of the terminal jobs. Filled by finished jobs; the janitor forgets the oldest above it. With the bound above
/// it bounds a snapshot, and what a peer holds in memory.
pub const ENDED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Tenants with jobs, or with a debt in the fair share. Filled by clients; at the bound idle ones are dropped, then
/// `Submit` of a new one is refused.
pub const TENANTS_MAX: usize = 1_024;
/// Idempotency keys of forgotten jobs. Filled by the janitor; at the bound the oldest is dropped.
pub const KEYS_MAX: usize = 100_000;
/// Weights of tenants in the settings. Filled by operators; at the bound `SetSettings` is refused.
pub const WEIGHTS_MAX: usize = 1_024;
/// Changes of one `SetSettings`; more is refused.
pub const SETTINGS_CHANGES_MAX: usize = 64;
/// Versions of the settings that are remembered; the oldest is dropped.
pub const SETTINGS_HISTORY_MAX: usize = 64;
/// Administrative acts that are remembered; the oldest is dropped.
pub const TRAIL_MAX: usize = 256;
/// Labels of one node; more is refused.
pub const LABELS_MAX: usize = 16;
/// Nodes of the roster. Filled by operators; at the bound `AllocateNode` and `RegisterNode` are refused.
pub const NODES_MAX: usize = 64;
/// Jobs that one node may hold at a time; more in `RegisterNode` is refused.
pub const SLOTS_MAX: u32 = 64;
/// Bytes of a job's parameters; longer ones are refused.
pub const PARAMETERS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a tenant's name, of a kind, of an idempotency key and of a traceparent; longer ones are refused.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of an address, of a determinism class and of a model name; longer ones are refused.
pub const TEXT_BYTES_MAX: usize = 512;
/// Bytes of one error; longer ones are cut at a character boundary.
pub const ERROR_BYTES_MAX: usize = 1024;
/// Failed attempts of one job; a larger `attempts_max` is refused. Bounds the list of errors too.
pub const ATTEMPTS_MAX: u32 = 10;
/// Artifacts of one job; more in `Complete` is refused.
pub const ARTIFACTS_MAX: usize = 16;
/// Holders of one artifact; more in `Complete` is refused.
pub const HOLDERS_MAX: usize = 8;
/// Jobs named by one `Forget`; more is refused.
pub const FORGET_JOBS_MAX: usize = 256;
/// Jobs named by one `Release`; more is refused.
pub const RELEASE_JOBS_MAX: usize = 256;
/// Keys named by one `ForgetKeys`; more is refused. So few that they fit into an entry.
pub const FORGET_KEYS_MAX: usize = 128;
/// Pictures that one job may cost; more is refused.
pub const COST_MAX: u32 = 1_000;
/// Highest priority; a higher one is refused.
pub const PRIORITY_MAX: u8 = 9;
/// Commands of one log entry; the proposer never makes more.
pub const ENTRY_COMMANDS_MAX: usize = 256;
/// Bytes of one encoded log entry; the proposer never makes a larger one.
pub const ENTRY_BYTES_MAX: usize = 48 * 1024;

const _: () = assert!(JOBS_KEPT_MAX + QUEUE_JOBS_MAX + NODES_MAX * SLOTS_MAX as usize <= JOBS_MAX);
// A full batch of keys, each with its two texts and their frames, fits into an entry.
const _: () = assert!(FORGET_KEYS_MAX * (2 * NAME_BYTES_MAX + 16) <= ENTRY_BYTES_MAX);
// The largest Submit fits into an entry with room for its names.
const _: () = assert!(PARAMETERS_BYTES_MAX + 8 * TEXT_BYTES_MAX <= ENTRY_BYTES_MAX);
