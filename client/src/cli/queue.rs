//! `atelier queue`: how full it is, who fills it, whether it runs, how far it may fill.

use atelier_client::{Author, Client, QueueStats, SettingValue, SettingsVersion};

use super::args::{Assignment, ChangeArgs, QueueCommand};
use super::change::{carry_out, cells, check_version, find, report};
use super::failure::{Exit, Failure};
use super::json::{Body, QueueView, SettingView};
use super::output::{Output, dash, note};
use super::reader::Reader;
use super::{Context, PATIENCE_CHANGE};

/// The setting that gives out no more jobs.
pub(super) const PAUSED: &str = "queue.paused";
const QUEUE_PREFIX: &str = "queue.";

pub(super) async fn run(context: &Context, command: QueueCommand) -> Result<Exit, Failure> {
    match command {
        QueueCommand::Stats { stale } => stats(context, &Reader::new(context, stale).await?).await,
        QueueCommand::Pause(change) => switch(context, true, &change).await,
        QueueCommand::Resume(change) => switch(context, false, &change).await,
        QueueCommand::Limits { jobs_max, tenant_jobs_max, weight, change, stale } => {
            let mut wanted = Vec::new();
            wanted.extend(jobs_max.map(|n| ("queue.jobs_max".to_owned(), n)));
            wanted.extend(tenant_jobs_max.map(|n| ("queue.tenant_jobs_max".to_owned(), n)));
            let weights = weight.into_iter();
            wanted.extend(weights.map(|(tenant, n)| (format!("queue.weight.{tenant}"), n)));
            if wanted.is_empty() {
                return limits(context, &Reader::new(context, stale).await?).await;
            }
            if stale.stale {
                return Err(Failure::new(Exit::Usage, "--stale is for looking at the bounds")
                    .hint("leave it out to set them: a change wants a leader"));
            }
            let wanted: Vec<_> =
                wanted.iter().map(|(key, n)| (key.as_str(), n.to_string())).collect();
            set(context, &wanted, &change).await
        }
    }
}

/// Pauses the queue, or resumes it; where it is so already nothing is written.
async fn switch(context: &Context, pause: bool, change: &ChangeArgs) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let settings = client.settings().await?;
    let paused = find(&settings, PAUSED).map(|setting| setting.value);
    if paused != Some(SettingValue::Flag(pause)) {
        return set(context, &[(PAUSED, pause.to_string())], change).await;
    }
    check_version(&settings, change)?;
    note(&match pause {
        true => format!("the queue is paused already{}", since(context, &client).await),
        false => "the queue is not paused; nothing was changed".to_owned(),
    });
    report(context, settings.version, &[], change.dry_run)
}

/// When it was paused, by whom and why, as far as the history goes back.
async fn since(context: &Context, client: &Client) -> String {
    let history = client.settings_history().await.unwrap_or_default();
    let words = paused_by(&history).map(|author| authored(context.output, author));
    words.map(|words| format!(", {words}")).unwrap_or_default()
}

/// Whose change paused the queue.
pub(super) fn paused_by(history: &[SettingsVersion]) -> Option<&Author> {
    let pauses = |version: &&SettingsVersion| {
        let mut after = version.after.iter();
        after.any(|change| change.key == PAUSED && change.value == Some(SettingValue::Flag(true)))
    };
    history.iter().find(pauses).map(|version| &version.author)
}

/// Since when, by whom and why.
pub(super) fn authored(output: Output, author: &Author) -> String {
    let mut words = format!("since {}", output.moment(author.at_ms));
    if !author.who.is_empty() {
        words += &format!(" by {}", author.who);
    }
    if !author.why.is_empty() {
        words += &format!(": {}", author.why);
    }
    words
}

async fn set(
    context: &Context,
    wanted: &[(&str, String)],
    change: &ChangeArgs,
) -> Result<Exit, Failure> {
    let assignment =
        |(key, value): &(&str, String)| Assignment { key: (*key).to_owned(), value: value.clone() };
    let assignments: Vec<_> = wanted.iter().map(assignment).collect();
    carry_out(context, &context.client(PATIENCE_CHANGE)?, &assignments, change).await
}

async fn limits(context: &Context, reader: &Reader) -> Result<Exit, Failure> {
    let settings = reader.client.settings().await?;
    let bounds = settings.settings.iter().filter(|setting| setting.key.starts_with(QUEUE_PREFIX));
    if context.output.is_json() {
        let (settings_version, settings) =
            (settings.version, bounds.map(SettingView::from).collect());
        reader.document(context, Body::Settings { settings_version, settings })?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = bounds.map(cells).collect();
    context.output.table(&["key", "value", "default", "range", "about"], &rows)?;
    reader.told();
    Ok(Exit::Ok)
}

async fn stats(context: &Context, reader: &Reader) -> Result<Exit, Failure> {
    let stats = reader.client.queue_stats().await?;
    if context.output.is_json() {
        reader.document(context, Body::Queue(QueueView::from(&stats)))?;
        return Ok(Exit::Ok);
    }
    totals(context, &stats)?;
    let rows = stats.priorities.iter().map(|priority| {
        let oldest = priority.oldest_ms.map(|ms| context.output.moment(ms));
        vec![priority.priority.to_string(), priority.queued.to_string(), dash(oldest)]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        context.output.line("")?;
        context.output.table(&["priority", "queued", "oldest"], &rows)?;
    }
    let rows: Vec<_> = stats
        .tenants
        .iter()
        .map(|of| {
            let numbers = [of.queued, of.leased, of.weight].map(|number| number.to_string());
            [vec![of.tenant.clone()], numbers.to_vec()].concat()
        })
        .collect();
    if !rows.is_empty() {
        context.output.line("")?;
        context.output.table(&["tenant", "queued", "leased", "weight"], &rows)?;
    }
    reader.told();
    Ok(Exit::Ok)
}

fn totals(context: &Context, stats: &QueueStats) -> Result<(), Failure> {
    let rows = [
        ("queued", stats.queued.to_string()),
        ("of these delayed", stats.delayed.to_string()),
        ("leased", stats.leased.to_string()),
        ("succeeded", stats.succeeded.to_string()),
        ("failed", stats.failed.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("forgotten", stats.forgotten.to_string()),
        ("paused", if stats.paused { "yes" } else { "no" }.to_owned()),
        ("bound of queued", stats.jobs_max.to_string()),
        ("bound of a tenant", dash(stats.tenant_jobs_max)),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.output.table(&["field", "value"], &rows)
}
