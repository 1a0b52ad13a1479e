//! `atelier config`: the settings of the cluster, their history, and the way back.

use std::collections::BTreeMap;

use atelier_client::{Setting, SettingChange, SettingValue, Settings, SettingsVersion};

use super::args::{ChangeArgs, ConfigCommand};
use super::change::{carry_out, cells, find, submit, table};
use super::failure::{Exit, Failure};
use super::json::{AuthorView, Body, SettingDifference, SettingView, TrailView, VersionView};
use super::output::{dash, note};
use super::reader::Reader;
use super::{Context, PATIENCE_CHANGE};

pub(super) async fn run(context: &Context, command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Get { keys, stale } => {
            get(context, &Reader::new(context, stale).await?, &keys).await
        }
        ConfigCommand::Set { assignments, change } => {
            let client = context.client(PATIENCE_CHANGE)?;
            carry_out(context, &client, &assignments, &change).await
        }
        ConfigCommand::Diff { from, to, stale } => {
            diff(context, &Reader::new(context, stale).await?, from, to).await
        }
        ConfigCommand::History { stale } => {
            history(context, &Reader::new(context, stale).await?).await
        }
        ConfigCommand::Undo(change) => undo(context, change).await,
        ConfigCommand::Trail { limit, stale } => {
            trail(context, &Reader::new(context, stale).await?, limit).await
        }
    }
}

async fn get(context: &Context, reader: &Reader, keys: &[String]) -> Result<Exit, Failure> {
    let settings = reader.client.settings().await?;
    let wanted = |key: &String| {
        find(&settings, key).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no setting {key}"))
                .hint("`atelier config get` lists them")
        })
    };
    let shown: Vec<&Setting> = match keys {
        [] => settings.settings.iter().collect(),
        keys => keys.iter().map(wanted).collect::<Result<_, _>>()?,
    };
    if context.output.is_json() {
        let settings_version = settings.version;
        let settings = shown.into_iter().map(SettingView::from).collect();
        reader.document(context, Body::Settings { settings_version, settings })?;
        return Ok(Exit::Ok);
    }
    if let ([_], [one]) = (keys, shown.as_slice()) {
        context.output.line(&one.value.to_string())?;
        reader.told();
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = shown.into_iter().map(cells).collect();
    context.output.table(&["key", "value", "default", "range", "about"], &rows)?;
    note(&format!("version {}", settings.version));
    reader.told();
    Ok(Exit::Ok)
}

async fn diff(
    context: &Context,
    reader: &Reader,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<Exit, Failure> {
    let settings = reader.client.settings().await?;
    let differences = match from {
        None => from_defaults(&settings),
        Some(from) => {
            let history = reader.client.settings_history().await?;
            between(&settings, &history, from, to.unwrap_or(settings.version))?
        }
    };
    if context.output.is_json() {
        let body = Body::SettingsDiff {
            settings_version: settings.version,
            from,
            to,
            changes: differences,
        };
        reader.document(context, body)?;
        return Ok(Exit::Ok);
    }
    table(context, &differences)?;
    reader.told();
    Ok(Exit::Ok)
}

fn from_defaults(settings: &Settings) -> Vec<SettingDifference> {
    let changed = settings.settings.iter().filter(|setting| setting.value != setting.default);
    changed.map(|s| SettingDifference::new(&s.key, s.default, s.value)).collect()
}

/// What differs between two versions, from the history of what lies between them.
fn between(
    settings: &Settings,
    history: &[SettingsVersion],
    from: u64,
    to: u64,
) -> Result<Vec<SettingDifference>, Failure> {
    let oldest = history.last().map_or(settings.version, |oldest| oldest.version - 1);
    for version in [from, to] {
        if !(oldest..=settings.version).contains(&version) {
            let newest = settings.version;
            let what = format!("version {version} is not remembered; {oldest} to {newest} are");
            return Err(Failure::new(Exit::NotFound, what)
                .hint("`atelier config history` lists the versions"));
        }
    }
    let (low, high) = (from.min(to), from.max(to));
    let mut ends: BTreeMap<&str, (Option<SettingValue>, Option<SettingValue>)> = BTreeMap::new();
    // Oldest first, so that the first `before` and the last `after` stay.
    for version in history.iter().rev().filter(|v| v.version > low && v.version <= high) {
        for (before, after) in pairs(version) {
            ends.entry(&before.key).or_insert((before.value, None)).1 = after;
        }
    }
    let known = |key: &str| find(settings, key).map(|setting| setting.default);
    let differs = ends.into_iter().filter(|(_, (before, after))| before != after);
    let differences = differs.map(|(key, (before, after))| {
        let default = known(key).unwrap_or(SettingValue::Number(1));
        let (before, after) = (before.unwrap_or(default), after.unwrap_or(default));
        match from <= to {
            true => SettingDifference::new(key, before, after),
            false => SettingDifference::new(key, after, before),
        }
    });
    Ok(differences.collect())
}

/// What held before beside what held after, key by key.
fn pairs(
    version: &SettingsVersion,
) -> impl Iterator<Item = (&SettingChange, Option<SettingValue>)> {
    version.before.iter().map(|before| {
        let after = version.after.iter().find(|after| after.key == before.key);
        (before, after.and_then(|after| after.value))
    })
}

async fn history(context: &Context, reader: &Reader) -> Result<Exit, Failure> {
    let history = reader.client.settings_history().await?;
    if context.output.is_json() {
        let versions = history.iter().map(VersionView::from).collect();
        reader.document(context, Body::SettingsHistory { versions })?;
        return Ok(Exit::Ok);
    }
    let mut rows = Vec::new();
    for version in &history {
        for (before, after) in pairs(version) {
            rows.push(vec![
                version.version.to_string(),
                context.output.moment(version.author.at_ms),
                dash(filled(&version.author.who)),
                before.key.clone(),
                word(before.value),
                word(after),
                dash(filled(&version.author.why)),
            ]);
        }
    }
    let header = ["version", "when", "who", "key", "before", "after", "why"];
    context.output.table(&header, &rows)?;
    reader.told();
    Ok(Exit::Ok)
}

async fn undo(context: &Context, mut change: ChangeArgs) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let settings = client.settings().await?;
    let history = client.settings_history().await?;
    let Some(last) = history.first() else {
        return Err(Failure::new(Exit::Conflict, "there is no change to take back")
            .hint("`atelier config diff` shows what differs from the defaults"));
    };
    if last.version != settings.version {
        let what = format!("version {} came meanwhile", last.version.max(settings.version));
        return Err(Failure::new(Exit::Conflict, what)
            .hint("`atelier config history` shows it; repeat the command when it is meant"));
    }
    if change.reason.is_empty() {
        change.reason = format!("takes version {} back", last.version);
    }
    submit(context, &client, &settings, &last.before, &change).await
}

async fn trail(context: &Context, reader: &Reader, limit: u32) -> Result<Exit, Failure> {
    let records = reader.client.trail(limit).await?;
    if context.output.is_json() {
        let records = records.iter().map(TrailView::from).collect();
        reader.document(context, Body::Trail { records })?;
        return Ok(Exit::Ok);
    }
    let row = |record: &atelier_client::TrailRecord| {
        let author = AuthorView::from(&record.author);
        let when = Some(record.author.at_ms).filter(|ms| *ms > 0);
        vec![
            record.log_index.to_string(),
            dash(when.map(|ms| context.output.moment(ms))),
            dash(author.who),
            record.act.clone(),
            dash(author.why),
        ]
    };
    let rows: Vec<_> = records.iter().map(row).collect();
    context.output.table(&["log index", "when", "who", "act", "why"], &rows)?;
    reader.told();
    Ok(Exit::Ok)
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn word(value: Option<SettingValue>) -> String {
    value.map_or_else(|| "default".to_owned(), |value| value.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use atelier_client::Author;

    fn version(number: u64, key: &str, before: Option<u64>, after: Option<u64>) -> SettingsVersion {
        let change = |value: Option<u64>| {
            vec![SettingChange { key: key.to_owned(), value: value.map(SettingValue::Number) }]
        };
        let (before, after) = (change(before), change(after));
        SettingsVersion { version: number, before, after, author: Author::default() }
    }

    fn told(from: u64, to: u64) -> Result<Vec<String>, String> {
        let settings = Settings { version: 4, settings: Vec::new() };
        let history = [
            version(4, "b", None, Some(9)),
            version(3, "a", Some(5), Some(7)),
            version(2, "a", None, Some(5)),
        ];
        let differences = between(&settings, &history, from, to).map_err(|failure| failure.what)?;
        Ok(differences.iter().map(|difference| difference.cells().join(" ")).collect())
    }

    #[test]
    fn versions_are_compared_over_what_lies_between_them() {
        assert_eq!(told(1, 4).unwrap(), ["a 1 7", "b 1 9"]);
        assert_eq!(told(2, 3).unwrap(), ["a 5 7"]);
        assert_eq!(told(3, 2).unwrap(), ["a 7 5"]);
        assert_eq!(told(4, 4).unwrap(), [] as [&str; 0]);
        assert_eq!(told(0, 4).unwrap_err(), "version 0 is not remembered; 1 to 4 are");
        assert!(told(1, 5).is_err());
    }
}
