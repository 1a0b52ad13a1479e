//! Previews in a watch.

use super::*;
use crate::ports::engine::Preview;

fn shown(number: u32) -> EngineStep {
    EngineStep { preview: Preview::new(vec![number as u8; 9].into()), ..step(number) }
}

impl World {
    async fn watch_with(&self, job: JobId, previews: bool) -> <Gateway as Atelier>::WatchStream {
        let request =
            wire::WatchRequest { job_id: job.to_string(), previews, ..Default::default() };
        self.gateway.watch(Request::new(request)).await.expect("it is known").into_inner()
    }
}

#[tokio::test(start_paused = true)]
async fn a_preview_is_told_once_and_only_where_it_is_asked_for() {
    let world = world();
    let job = id(&world.submit().await);
    world.register(1);
    let token = world.assign(job, 1);
    let writer = world.board.begin(job, token);
    let (mut asked, mut unasked) =
        (world.watch_with(job, true).await, world.watch_with(job, false).await);
    for events in [&mut asked, &mut unasked] {
        let leased = next(events).await.expect("an event");
        assert_eq!((leased.progress, leased.preview.len()), (None, 0));
    }
    writer.publish(shown(3));
    let event = next(&mut asked).await.expect("an event");
    assert_eq!((event.progress.expect("a step").step, &event.preview[..]), (3, &[3; 9][..]));
    let alive = next(&mut asked).await.expect("a sign of life");
    assert_eq!((alive.progress.expect("a step").step, alive.preview.len()), (3, 0));
    let event = next(&mut unasked).await.expect("an event");
    assert_eq!((event.progress.expect("a step").step, event.preview.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_slow_misses_previews_and_no_fact() {
    let world = world();
    let job = id(&world.submit().await);
    world.register(1);
    let mut events = world.watch_with(job, true).await;
    next(&mut events).await.expect("it waits");
    let token = world.assign(job, 1);
    next(&mut events).await.expect("it is drawn");
    let writer = world.board.begin(job, token);
    (1..=7).for_each(|number| writer.publish(shown(number)));
    let event = next(&mut events).await.expect("an event");
    assert_eq!((event.progress.expect("a step").step, &event.preview[..]), (7, &[7; 9][..]));
    writer.publish(shown(8));
    // The lease moves before that is read: what belongs to the old one is not told.
    let revoke = Revoke { job, token, reason: RevokeReason::Silent };
    world.log.apply(&[Command::Revoke(revoke)]);
    let event = next(&mut events).await.expect("an event");
    assert_eq!(event.job.expect("a job").phase(), wire::Phase::Queued);
    assert_eq!((event.progress, event.preview.len()), (None, 0));
}
