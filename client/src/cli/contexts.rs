//! Names for clusters, in `~/.config/atelier/contexts.toml`, and the completions of a shell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde::{Deserialize, Serialize};

use super::Context;
use super::args::{Args, CompletionsArgs, Connection, ContextCommand};
use super::failure::{Exit, Failure};
use super::json::{Body, ContextView, Document};
use super::output::{dash, note};

/// A peer on this machine, started without a word about ports.
pub(super) const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:7861";

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    /// Which one is used where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Named>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Named {
    endpoints: Vec<String>,
    /// Where this machine stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// Fills in the endpoints: those named, else those of the context, else a peer on this machine. A
/// context brings its region along, unless another is named. One that is named and unknown is never
/// passed over, whatever else the environment names.
pub(super) fn resolve(connection: &mut Connection) -> Result<(), Failure> {
    if !connection.endpoints.is_empty() && connection.context.is_none() {
        return Ok(());
    }
    let known = match file() {
        Some(path) => load(&path)?,
        None => Contexts::default(),
    };
    if !connection.endpoints.is_empty() {
        let stray = connection.context.as_ref().filter(|name| !known.contexts.contains_key(*name));
        return stray.map_or(Ok(()), |name| Err(unknown(name)));
    }
    let Some(name) = connection.context.clone().or(known.current) else {
        connection.endpoints = vec![ENDPOINT_DEFAULT.to_owned()];
        return Ok(());
    };
    let named = known.contexts.get(&name).ok_or_else(|| unknown(&name))?;
    connection.endpoints.clone_from(&named.endpoints);
    connection.region = connection.region.take().or_else(|| named.region.clone());
    Ok(())
}

pub(super) fn run(context: &Context, command: ContextCommand) -> Result<Exit, Failure> {
    let path = file().ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no place for contexts")
            .hint("set XDG_CONFIG_HOME or HOME")
    })?;
    let mut known = load(&path)?;
    match command {
        ContextCommand::List => return list(context, &known),
        ContextCommand::Add { name, endpoints } => {
            // Checked now, not when they are used.
            check_endpoints(&endpoints)?;
            let region = context.connection.region.clone();
            let named = Named { endpoints, region };
            let told = named.endpoints.join(",");
            if let Some(before) = known.contexts.insert(name.clone(), named) {
                let before = before.endpoints.join(",");
                note(&format!("{name} is replaced: it was at {before}, and is at {told}"));
            }
            known.current.get_or_insert(name);
        }
        ContextCommand::Use { name } => {
            if !known.contexts.contains_key(&name) {
                return Err(unknown(&name));
            }
            known.current = Some(name);
        }
        ContextCommand::Remove { name } => {
            known.contexts.remove(&name).ok_or_else(|| unknown(&name))?;
            known.current = known.current.filter(|current| *current != name);
        }
    }
    save(&path, &known)?;
    match &known.current {
        Some(current) => note(&format!("in use: {current}")),
        None => note(&format!("none is in use: {ENDPOINT_DEFAULT} is asked")),
    }
    Ok(Exit::Ok)
}

/// Prints what a shell reads to complete this program's words.
pub(super) fn completions(context: &Context, args: CompletionsArgs) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "atelier", &mut text);
    context.output.bytes(&text)?;
    Ok(Exit::Ok)
}

fn list(context: &Context, known: &Contexts) -> Result<Exit, Failure> {
    let view = |(name, named): (&String, &Named)| ContextView {
        name: name.clone(),
        endpoints: named.endpoints.clone(),
        region: named.region.clone(),
        in_use: known.current.as_ref() == Some(name),
    };
    let contexts: Vec<_> = known.contexts.iter().map(view).collect();
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Contexts { contexts }))?;
        return Ok(Exit::Ok);
    }
    let row = |one: &ContextView| {
        let used = if one.in_use { "yes" } else { "no" };
        let region = dash(one.region.as_ref());
        vec![one.name.clone(), used.to_owned(), one.endpoints.join(","), region]
    };
    let rows: Vec<_> = contexts.iter().map(row).collect();
    context.output.table(&["name", "in use", "endpoints", "region"], &rows)?;
    Ok(Exit::Ok)
}

fn check_endpoints(endpoints: &[String]) -> Result<(), Failure> {
    for endpoint in endpoints {
        super::address::address(endpoint).map_err(|expected| {
            Failure::new(Exit::Usage, format!("{endpoint:?} is no endpoint: {expected}"))
        })?;
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no context {name:?}"))
        .hint("`atelier context list` shows which there are")
}

fn file() -> Option<PathBuf> {
    let filled = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = filled("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(filled("HOME")?).join(".config")));
    Some(config?.join("atelier/contexts.toml"))
}

fn load(path: &Path) -> Result<Contexts, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let what = format!("cannot read {}: {error}", path.display());
            return Err(Failure::new(Exit::Failed, what));
        }
    };
    toml::from_str(&text).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot read {}", path.display()))
            .why(error.to_string().lines().map(str::to_owned))
            .hint("mend it, or move it away")
    })
}

/// Writes beside and renames, so that the file is whole at every moment.
fn save(path: &Path, contexts: &Contexts) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let text = toml::to_string(contexts).map_err(|error| {
        Failure::new(Exit::Failed, format!("contexts cannot be written: {error}"))
    })?;
    let beside = tempfile::NamedTempFile::new_in(directory)?;
    std::fs::write(beside.path(), text)?;
    beside.persist(path).map_err(|error| Failure::from(error.error))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/contexts.toml");
        assert_eq!(load(&path).unwrap(), Contexts::default());
        let endpoints = vec!["http://a:1".into(), "http://b:1".into()];
        let named = Named { endpoints, region: Some("north".into()) };
        let contexts =
            Contexts { current: Some("home".into()), contexts: [("home".into(), named)].into() };
        save(&path, &contexts).unwrap();
        save(&path, &contexts).unwrap();
        assert_eq!(load(&path).unwrap(), contexts);
        std::fs::write(&path, "curent = 1").unwrap();
        assert!(load(&path).unwrap_err().why.iter().any(|line| line.contains("curent")));
    }
}
