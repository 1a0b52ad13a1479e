//! Why a job that is waited for does not move: nobody is given a job while the queue is paused.

use std::cell::Cell;
use std::time::Duration;

use atelier_client::{Client, Event, Phase, SettingValue};
use tokio::time::{Instant, sleep};

use super::Context;
use super::change::find;
use super::queue::{PAUSED, paused_by};

/// How soon it is seen that the job waits.
const PULSE: Duration = Duration::from_millis(200);
/// Between two looks at the settings, while the job waits.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Whether the job waits in the queue, as its last event says.
#[derive(Debug, Default)]
pub(super) struct Waiting(Cell<bool>);

impl Waiting {
    pub(super) fn observe(&self, event: &Event) {
        self.0.set(event.job.phase == Phase::Queued);
    }
}

/// Goes on with `work`; while the job waits and the queue is paused, says so, once for each reason.
/// Who interrupts or runs out of time is told it again.
pub(super) async fn told_while<T>(
    context: &Context,
    client: &Client,
    waiting: &Waiting,
    say: impl Fn(&str),
    work: impl Future<Output = T>,
) -> T {
    let looks = async {
        let mut looked: Option<Instant> = None;
        let mut told = None;
        loop {
            sleep(PULSE).await;
            if !waiting.0.get() {
                context.note_pause(None);
                continue;
            }
            if looked.is_some_and(|looked| looked.elapsed() < BETWEEN_LOOKS) {
                continue;
            }
            let words = words(client).await;
            looked = Some(Instant::now());
            // The job may have been given to somebody meanwhile.
            let words = words.filter(|_| waiting.0.get());
            context.note_pause(words.clone());
            if let Some(words) = words.filter(|words| told.as_ref() != Some(words)) {
                say(&words);
                told = Some(words);
            }
        }
    };
    tokio::select! {
        done = work => done,
        () = looks => unreachable!("it looks until the work is done"),
    }
}

/// Says that the queue is paused, and why as far as the history goes back; `None` where it is not,
/// or where nobody says so.
async fn words(client: &Client) -> Option<String> {
    let settings = client.settings().await.ok()?;
    let is_paused = find(&settings, PAUSED).map(|setting| setting.value);
    if is_paused != Some(SettingValue::Flag(true)) {
        return None;
    }
    let history = client.settings_history().await.unwrap_or_default();
    let why = paused_by(&history).map(|author| author.why.as_str()).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("the queue is paused{why}; `atelier queue resume`"))
}
