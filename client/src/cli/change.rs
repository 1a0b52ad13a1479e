//! Changing settings: typed, shown before and after, and only if they are what was seen.

use std::io::{IsTerminal, Write};

use atelier_client::{Author, Client, Error, Setting, SettingChange, SettingValue, Settings};

use super::Context;
use super::args::{Assignment, ChangeArgs};
use super::failure::{Exit, Failure};
use super::json::{Body, Document, SettingDifference};
use super::output::{dash, note};

/// The value of a setting that goes back to its default.
const DEFAULT_WORD: &str = "default";
/// Settings of this prefix exist for every tenant, whether or not anybody has set them.
const WEIGHT_PREFIX: &str = "queue.weight.";

/// Changes settings as flags say, and shows what changed.
///
/// Without an expected version the one that was just read is expected: what was shown as "before"
/// is what was changed.
pub(super) async fn carry_out(
    context: &Context,
    client: &Client,
    assignments: &[Assignment],
    args: &ChangeArgs,
) -> Result<Exit, Failure> {
    let settings = client.settings().await?;
    let changes: Vec<SettingChange> = assignments
        .iter()
        .map(|assignment| read(&settings, assignment))
        .collect::<Result<_, _>>()?;
    check_version(&settings, args)?;
    if changes.iter().all(|change| holds(&settings, change)) {
        note("nothing was changed: it is so already");
        return report(context, settings.version, &[], args.dry_run);
    }
    submit(context, client, &settings, &changes, args).await
}

/// Whether a change would leave a setting as it is, up to whether it was set at all.
fn holds(settings: &Settings, change: &SettingChange) -> bool {
    let known = find(settings, &change.key);
    let set = known.filter(|setting| setting.version.is_some());
    match change.value {
        None => set.is_none(),
        Some(value) => set.is_some_and(|setting| setting.value == value),
    }
}

/// Refuses to change settings that are not those that the caller expects; returns their version.
pub(super) fn check_version(settings: &Settings, args: &ChangeArgs) -> Result<u64, Failure> {
    let expected = args.expect_version.unwrap_or(settings.version);
    if expected == settings.version {
        return Ok(expected);
    }
    let what = format!("the settings have version {}, not {expected}", settings.version);
    Err(Failure::new(Exit::Conflict, what)
        .hint("`atelier config history` shows who changed what; look, then repeat the command"))
}

/// Proposes changes against settings that were read, and shows what changed.
pub(super) async fn submit(
    context: &Context,
    client: &Client,
    settings: &Settings,
    changes: &[SettingChange],
    args: &ChangeArgs,
) -> Result<Exit, Failure> {
    let expected = check_version(settings, args)?;
    let differences: Vec<_> = changes.iter().map(|change| difference(settings, change)).collect();
    if args.dry_run {
        note("dry run: nothing was changed");
        return report(context, settings.version, &differences, true);
    }
    let author = Author { who: who(), why: args.reason.clone(), at_ms: 0 };
    let after = client.set_settings(Some(expected), changes, &author).await.map_err(|error| {
        let is_conflict = matches!(error, Error::Conflict { .. });
        let failure = Failure::from(error);
        let hint = "`atelier config history` shows who was faster; look, then repeat the command";
        if is_conflict { failure.hinted([hint.to_owned()]) } else { failure }
    })?;
    report(context, after.version, &differences, false)
}

/// Tells what changed, or would.
pub(super) fn report(
    context: &Context,
    settings_version: u64,
    differences: &[SettingDifference],
    dry_run: bool,
) -> Result<Exit, Failure> {
    if context.output.is_json() {
        let changes = differences.to_vec();
        let body = Body::SettingsChange { settings_version, dry_run, changes };
        context.output.document(&Document::from(body))?;
        return Ok(Exit::Ok);
    }
    if differences.is_empty() {
        return Ok(Exit::Ok);
    }
    table(context, differences)?;
    if !dry_run {
        note(&format!("version {settings_version}; take it back with: atelier config undo"));
    }
    Ok(Exit::Ok)
}

/// Prints what differs, key by key.
pub(super) fn table(context: &Context, differences: &[SettingDifference]) -> Result<(), Failure> {
    let rows: Vec<_> = differences.iter().map(SettingDifference::cells).collect();
    context.output.table(&["key", "before", "after"], &rows)
}

fn difference(settings: &Settings, change: &SettingChange) -> SettingDifference {
    let known = find(settings, &change.key);
    let before = known.map_or(SettingValue::Number(1), |setting| setting.value);
    let default = known.map_or(SettingValue::Number(1), |setting| setting.default);
    SettingDifference::new(&change.key, before, change.value.unwrap_or(default))
}

/// Reads an assignment as the setting's type wants it.
fn read(settings: &Settings, assignment: &Assignment) -> Result<SettingChange, Failure> {
    let Assignment { key, value } = assignment;
    let known = find(settings, key);
    if known.is_none() && !key.starts_with(WEIGHT_PREFIX) {
        return Err(Failure::new(Exit::Usage, format!("there is no setting {key}"))
            .why(nearest(settings, key).map(|near| format!("did you mean {near}?")))
            .hint("`atelier config get` lists them"));
    }
    if value == DEFAULT_WORD {
        return Ok(SettingChange { key: key.clone(), value: None });
    }
    let wrong = |expected: String| {
        let what = format!("{key}: expected {expected}, got {value:?}");
        Failure::new(Exit::Usage, what)
            .hint(format!("`atelier config set {key}=default` unsets it"))
    };
    let value = match known {
        Some(Setting { default: SettingValue::Flag(_), .. }) => {
            let flag = value.parse().map_err(|_| wrong("true or false".to_owned()))?;
            SettingValue::Flag(flag)
        }
        Some(Setting { least, most, unit, .. }) => {
            let expected = || format!("a whole number from {least} to {most} {unit}");
            let fits = |number: &u64| (*least..=*most).contains(number);
            let number = value.parse().ok().filter(fits);
            SettingValue::Number(number.ok_or_else(|| wrong(expected().trim_end().to_owned()))?)
        }
        // The cluster knows the range of a weight that nobody has set yet.
        None => {
            let number = value.parse().map_err(|_| wrong("a whole number".to_owned()))?;
            SettingValue::Number(number)
        }
    };
    Ok(SettingChange { key: key.clone(), value: Some(value) })
}

/// Finds a setting by its key.
pub(super) fn find<'a>(settings: &'a Settings, key: &str) -> Option<&'a Setting> {
    settings.settings.iter().find(|setting| setting.key == key)
}

/// The key that begins or ends like the one that was typed.
fn nearest<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let keys = || settings.settings.iter().map(|setting| setting.key.as_str());
    let ends = keys().find(|known| known.ends_with(last));
    ends.or_else(|| keys().find(|known| known.contains(last) || last.contains(known)))
}

/// Who is at the keyboard, as the system tells; empty where it does not.
pub(super) fn who() -> String {
    std::env::var("USER").unwrap_or_default()
}

/// Asks to type a word, where something cannot be taken back.
pub(super) async fn confirm(word: &str, to: &str, not_done: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, not_done)
            .why(["there is no terminal to ask on".to_owned()])
            .hint("say --yes when it is meant, or --dry-run to see what it does"));
    }
    let mut out = std::io::stderr();
    write!(out, "type {word} {to}: ")?;
    out.flush()?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(std::io::Error::other)??;
    if line.trim() != word {
        return Err(Failure::new(Exit::Failed, not_done)
            .why([format!("expected {word}, got {:?}", line.trim())]));
    }
    Ok(())
}

/// The cells of a setting in a table: key, value, default, range, what it does.
pub(super) fn cells(setting: &Setting) -> Vec<String> {
    let range = match setting.default {
        SettingValue::Flag(_) => "true or false".to_owned(),
        SettingValue::Number(_) => {
            format!("{} to {} {}", setting.least, setting.most, setting.unit).trim_end().to_owned()
        }
    };
    vec![
        setting.key.clone(),
        setting.value.to_string(),
        setting.default.to_string(),
        range,
        dash((!setting.about.is_empty()).then_some(&setting.about)),
    ]
}
