//! Every bound of the replicated state: who fills it, and what happens when it is full.

/// Jobs that wait. Filled by clients; at the bound `Submit` is refused and the gateway answers with Retry-After.
pub const QUEUE_JOBS_MAX: usize = 10_000;
/// Jobs that are remembered, terminal ones too. Filled by finished jobs; the janitor forgets the oldest
/// terminal ones above `JOBS_KEPT`, and at the bound `Submit` is refused.
pub const JOBS_MAX: usize = 40_000;
/// Terminal jobs that the janitor keeps.
pub const JOBS_KEPT: usize = 20_000;
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
/// Highest priority; a higher one is refused.
pub const PRIORITY_MAX: u8 = 9;
/// Commands of one log entry; the proposer never makes more.
pub const ENTRY_COMMANDS_MAX: usize = 256;
/// Bytes of one encoded log entry; the proposer never makes a larger one.
pub const ENTRY_BYTES_MAX: usize = 48 * 1024;

const _: () = assert!(JOBS_KEPT + QUEUE_JOBS_MAX + NODES_MAX * SLOTS_MAX as usize <= JOBS_MAX);
// The largest Submit fits into an entry with room for its names.
const _: () = assert!(PARAMETERS_BYTES_MAX + 8 * TEXT_BYTES_MAX <= ENTRY_BYTES_MAX);
