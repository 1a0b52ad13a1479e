//! Calls about the settings of the cluster and the trail of administrative acts.

use atelier_proto::client::v1 as wire;

use crate::budget::Kind;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::types::{Author, SettingChange, Settings, SettingsVersion, TrailRecord};

impl Client {
    /// Reads all settings, as the peer that answers knows them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when no peer answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn settings(&self) -> Result<Settings, Error> {
        let request = wire::GetSettingsRequest {};
        let reply =
            self.call(Kind::Read, request, |mut rpc, request| async move {
                rpc.get_settings(request).await
            })
            .await?;
        convert::settings(reply)
    }

    /// Changes settings, all of them or none, and returns all as they are then. They hold on every
    /// peer as soon as it has applied the change, without a restart.
    ///
    /// With an expected version the change is made only if nobody changed anything since.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: no such setting, or a value it does not take.
    /// - [`Error::Conflict`]: the version is another one by now; read the settings again.
    /// - [`Error::UnknownChange`]: read the settings before changing them again.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: read the settings.
    pub async fn set_settings(
        &self,
        expected_version: Option<u64>,
        changes: &[SettingChange],
        author: &Author,
    ) -> Result<Settings, Error> {
        let request = wire::SetSettingsRequest {
            expected_version,
            changes: changes.iter().map(convert::change_to_wire).collect(),
            author: Some(convert::author_to_wire(author)),
        };
        let reply = self
            .call(Kind::Change("change the settings"), request, |mut rpc, request| async move {
                rpc.set_settings(request).await
            })
            .await?;
        convert::settings(reply)
    }

    /// Reads the last changes of the settings, newest first.
    ///
    /// # Errors
    /// As [`Client::settings`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn settings_history(&self) -> Result<Vec<SettingsVersion>, Error> {
        let request = wire::SettingsHistoryRequest {};
        let reply = self
            .call(Kind::Read, request, |mut rpc, request| async move {
                rpc.settings_history(request).await
            })
            .await?;
        convert::history(reply)
    }

    /// Reads the administrative acts that the cluster remembers, newest first; 0 for all.
    ///
    /// # Errors
    /// As [`Client::settings`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn trail(&self, limit: u32) -> Result<Vec<TrailRecord>, Error> {
        let request = wire::TrailRequest { limit };
        let reply = self
            .call(Kind::Read, request, |mut rpc, request| async move { rpc.trail(request).await })
            .await?;
        Ok(convert::trail(reply))
    }
}
