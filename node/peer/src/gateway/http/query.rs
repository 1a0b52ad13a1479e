//! The part of an address behind the question mark.

use super::error::{Fault, Problem};
use axum::http::Uri;

/// Its names and values.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them.
    ///
    /// # Errors
    /// For what is not encoded as forms are.
    pub(super) fn of(uri: &Uri) -> Result<Query, Problem> {
        let read = serde_urlencoded::from_str(uri.query().unwrap_or_default());
        read.map(Query).map_err(|error| {
            let message = format!("query: expected name=value pairs, got {error}");
            let (field, kind) = (String::new(), "value_error");
            Problem::invalid(vec![Fault { field, message, kind }])
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a name is there and its value says yes.
    pub(super) fn says(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "" | "1" | "true" | "yes"))
    }
}
