//! The three sources of settings, and what is told of those that do not fit.

use super::Config;
use super::fields::{FIELDS, Field, Kind};
use std::fmt;
use toml::Value;

/// What every environment variable of ours begins with.
const PREFIX: &str = "ATELIER_";

/// Variables of the prefix that are not settings of a peer: where the file is, and what the
/// command line client reads in the same shell.
const FOREIGN: &[&str] = &["ATELIER_CONFIG", "ATELIER_ENDPOINTS", "ATELIER_TIMEOUT"];
/// The key whose value is never told.
pub(super) const SECRET: &str = "cluster_token";

/// The client's name for the model directory, which `atelier demo` reads, means the same here; its
/// full name outranks it.
const MODEL_ALIAS: (&str, &str) = ("ATELIER_MODEL", "ATELIER_ENGINE_MODEL");

/// Where settings come from, in rising rank.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of the TOML file.
    pub file: Option<(String, String)>,
    /// The whole environment; what does not begin with `ATELIER_` is passed over.
    pub environment: Vec<(String, String)>,
    /// Settings from the command line.
    pub flags: Vec<Setting>,
}

/// One setting from the command line.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How the user wrote it, for example `--http`.
    pub flag: String,
    /// The key, for example `listen.http`.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, in dotted form.
    pub key: String,
    /// What is wrong, expected and got.
    pub text: String,
    /// Which source said it; empty where it is the whole that does not fit.
    pub origin: String,
}

/// Every fault of a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)?;
        if self.origin.is_empty() { Ok(()) } else { write!(f, " (from {})", self.origin) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "the configuration has {} {noun}", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Fault {
    /// A fault of the whole, not of one source.
    pub(super) fn relation(key: &str, expected: &str, got: String) -> Self {
        let text = format!("expected {expected}, got {got}");
        Self { key: key.to_owned(), text, origin: String::new() }
    }

    fn value(field: &Field, got: &str, origin: &str) -> Self {
        let got = if field.key == SECRET { "another, which is not shown" } else { got };
        let text = format!("expected {}, got {got}", field.expected);
        Self { key: field.key.to_owned(), text, origin: origin.to_owned() }
    }
}

/// Applies all sources in rising rank, and answers what did not fit.
pub(super) fn apply_all(config: &mut Config, sources: &Sources) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some((name, text)) = &sources.file {
        match text.parse::<toml::Table>() {
            Ok(table) => apply_table(config, "", &table, name, &mut faults),
            Err(error) => faults.push(Fault {
                key: name.clone(),
                text: format!("not TOML: {}", error.to_string().trim_end()),
                origin: String::new(),
            }),
        }
    }
    let own_name_is_set = sources.environment.iter().any(|(name, _)| name == MODEL_ALIAS.1);
    for (variable, value) in &sources.environment {
        let ours = variable.starts_with(PREFIX) && !FOREIGN.contains(&variable.as_str());
        let is_alias = variable == MODEL_ALIAS.0;
        if !ours || is_alias && own_name_is_set {
            continue;
        }
        let name = if is_alias { MODEL_ALIAS.1 } else { variable };
        match FIELDS.iter().find(|field| variable_of(field.key) == name) {
            Some(field) => apply_text(config, field, value, variable, &mut faults),
            None => {
                let known = FIELDS.iter().map(|field| variable_of(field.key));
                faults.push(unknown(variable, "variable", known, ""));
            }
        }
    }
    for Setting { flag, key, value } in &sources.flags {
        match FIELDS.iter().find(|field| field.key == *key) {
            Some(field) => apply_text(config, field, value, flag, &mut faults),
            None => faults.push(unknown(key, "key", keys(), flag)),
        }
    }
    faults
}

/// The environment variable of a key.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn apply_text(
    config: &mut Config,
    field: &Field,
    text: &str,
    origin: &str,
    faults: &mut Vec<Fault>,
) {
    if !(field.set)(config, text) {
        faults.push(Fault::value(field, &format!("`{text}`"), origin));
    }
}

fn apply_table(
    config: &mut Config,
    parent: &str,
    table: &toml::Table,
    origin: &str,
    faults: &mut Vec<Fault>,
) {
    for (name, value) in table {
        let key = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        let field = FIELDS.iter().find(|field| field.key == key);
        let is_table = FIELDS.iter().any(|field| field.key.starts_with(&format!("{key}.")));
        match (field, value) {
            (Some(field), value) => match text_of(field.kind, value) {
                Some(text) if (field.set)(config, &text) => {}
                _ => faults.push(Fault::value(field, &shown(value), origin)),
            },
            (None, Value::Table(table)) if is_table => {
                apply_table(config, &key, table, origin, faults);
            }
            (None, value) if is_table => faults.push(Fault {
                text: format!("expected a table [{key}], got {}", shown(value)),
                key,
                origin: origin.to_owned(),
            }),
            (None, _) => faults.push(unknown(&key, "key", keys(), origin)),
        }
    }
}

/// A TOML value as the text that `Field::set` reads; none where its type is not the field's.
fn text_of(kind: Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (Kind::Number, Value::Integer(number)) => Some(number.to_string()),
        (Kind::Switch, Value::Boolean(switch)) => Some(switch.to_string()),
        (Kind::Text, Value::String(text)) => Some(text.clone()),
        (Kind::Peers, Value::Array(peers)) => {
            let peers: Option<Vec<String>> = peers.iter().map(peer_text).collect();
            Some(peers?.join(","))
        }
        _ => None,
    }
}

fn peer_text(value: &Value) -> Option<String> {
    let table = value.as_table().filter(|table| table.len() == 2)?;
    let id = table.get("id")?.as_integer()?;
    let address = table.get("address")?.as_str().filter(|address| !address.contains(','))?;
    Some(format!("{id}={address}"))
}

/// How a value is shown in a fault: its TOML text, in one line and not too long.
fn shown(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    let text = value.to_string().replace('\n', " ");
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < text.len() { format!("`{cut}…`") } else { format!("`{cut}`") }
}

fn keys() -> impl Iterator<Item = String> {
    FIELDS.iter().map(|field| field.key.to_owned())
}

fn unknown(key: &str, noun: &str, known: impl Iterator<Item = String>, origin: &str) -> Fault {
    let nearest = known.min_by_key(|known| distance(key, known)).unwrap_or_default();
    let text = format!("unknown {noun}; the nearest known one is {nearest}");
    Fault { key: key.to_owned(), text, origin: origin.to_owned() }
}

/// The edit distance of two short texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
