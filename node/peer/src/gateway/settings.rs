//! Calls about the settings of the cluster, their history, and the trail of administrative acts.

use super::convert;
use super::error::{not_proposed, refused};
use super::{CATCH_UP_MAX, Gateway, deadline_of};
use crate::view::View;
use atelier_proto::client::v1 as wire;
use atelier_state::settings::SettingChange;
use atelier_state::{Author, Command, LogIndex, Refusal, Reply, SetSettings};
use std::sync::atomic::Ordering;
use tonic::{Request, Status};

/// How often a change that expects no version is tried against the newest one. Others would have to
/// change the settings between each reading and writing.
const TRIES_MAX: u32 = 8;

impl Gateway {
    pub(super) async fn do_get_settings(&self) -> wire::SettingsReply {
        self.catch_up(LogIndex(self.acknowledged.load(Ordering::Relaxed))).await;
        convert::settings(&self.view().state)
    }

    /// Changes the settings by compare-and-set, and answers as they are then.
    pub(super) async fn do_set_settings(
        &self,
        request: Request<wire::SetSettingsRequest>,
    ) -> Result<wire::SettingsReply, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |request| request.author.clone());
        let request = request.into_inner();
        let changes = convert::setting_changes(request.changes)?;
        if request.expected_version.is_none() && self.are_made(&changes).await {
            return Ok(convert::settings(&self.view().state));
        }
        for _ in 0..TRIES_MAX {
            let expected = match request.expected_version {
                Some(version) => version,
                None => self.do_get_settings().await.version,
            };
            let (changes, author) = (changes.clone(), author.clone());
            let set = SetSettings { expected_version: expected, changes, author };
            let command = Command::SetSettings(set.clone());
            let index = match self.proposer.propose_within(command, deadline).await {
                Ok((index, Reply::Refused(refusal))) => {
                    self.catch_up(index).await;
                    let is_stale = matches!(refusal, Refusal::StaleVersion(_));
                    if is_stale && self.is_made(&set) {
                        index
                    } else if is_stale && request.expected_version.is_none() {
                        continue;
                    } else {
                        return Err(refused(&refusal));
                    }
                }
                Ok((index, _)) => index,
                Err(failure) => {
                    let leader = self.leader.address();
                    let what = "changing the settings";
                    return Err(not_proposed(&failure, what, leader.as_deref()));
                }
            };
            self.acknowledged.fetch_max(index.0, Ordering::Relaxed);
            self.show(index, "changing the settings").await?;
            return Ok(convert::settings(&self.view().state));
        }
        let text = "others change the settings all the time; name the version that you expect";
        Err(Status::failed_precondition(text))
    }

    /// Says whether the settings are so already, as the leader knows them: then there is nothing to write. Where no
    /// leader answers nobody knows.
    async fn are_made(&self, changes: &[SettingChange]) -> bool {
        let Ok(last) = self.leader.last_index(CATCH_UP_MAX).await else { return false };
        self.catch_up(last).await;
        let View { state, applied } = self.view();
        let is_made = |change: &SettingChange| {
            change.value.is_some() && state.settings().get(&change.key) == change.value
        };
        applied >= last && changes.iter().all(is_made)
    }

    /// Says whether a change was made by an earlier attempt whose answer was lost: the proposer
    /// repeats itself.
    fn is_made(&self, set: &SetSettings) -> bool {
        let state = self.view().state;
        let mut made = state.settings_history().rev();
        made.any(|record| {
            record.version == set.expected_version + 1
                && record.after == set.changes
                && record.author == set.author
        })
    }

    pub(super) fn do_settings_history(&self) -> wire::SettingsHistoryReply {
        convert::settings_history(&self.view().state)
    }

    pub(super) fn do_trail(&self, limit: u32) -> wire::TrailReply {
        convert::trail(&self.view().state, limit)
    }

    /// Who asks: as the request says, else the caller's address; when, by this peer's clock.
    pub(super) fn author<T>(
        &self,
        request: &Request<T>,
        named: impl Fn(&T) -> Option<wire::Author>,
    ) -> Author {
        let wire::Author { who, why, at_ms: _ } = named(request.get_ref()).unwrap_or_default();
        let address = || request.remote_addr().map(|address| address.to_string());
        let who = if who.is_empty() { address().unwrap_or_default() } else { who };
        Author { who, why, at_ms: self.clock.wall_ms() }
    }
}
