//! What the operators' commands print in JSON.

use serde::Serialize;

/// Whether every peer has the same state at one entry.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyView {
    /// The entry.
    pub(crate) log_index: u64,
    /// Null where fewer than two peers answered.
    pub(crate) consistent: Option<bool>,
    pub(crate) peers: Vec<VerifiedView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VerifiedView {
    pub(crate) node: u64,
    pub(crate) address: String,
    pub(crate) state_digest: Option<String>,
    pub(crate) why: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TransferView {
    pub(crate) before: Option<u64>,
    pub(crate) leader: u64,
    pub(crate) milliseconds: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotView {
    pub(crate) node: u64,
    pub(crate) address: String,
    pub(crate) log_index: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) why: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct InitView {
    pub(crate) cluster: String,
    /// Whoever has it may join. Keep it secret.
    pub(crate) token: String,
    pub(crate) files: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DoctorView {
    pub(crate) level: &'static str,
    pub(crate) checks: Vec<CheckView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckView {
    /// Null for what concerns the whole cluster.
    pub(crate) node: Option<u64>,
    pub(crate) check: String,
    pub(crate) level: &'static str,
    pub(crate) found: String,
    pub(crate) fix: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ContextView {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) region: Option<String>,
    pub(crate) in_use: bool,
}
