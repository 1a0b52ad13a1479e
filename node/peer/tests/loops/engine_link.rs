//! The link to a real child process: this very test binary, run again as an engine.
//!
//! The harness prints to standard output, so a shell hands the pipe to the child as descriptor 3.

use crate::support::{eventually, info, ms};
use atelier_peer::engine_link::{
    ChildEngine, ChildSettings, DrawFailure, DrawOrder, EngineServer, Teller, Told,
};
use atelier_peer::parameters::{Guidance, Source, TEXT_TO_IMAGE_KIND, TextToImage};
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineCheckpoint, EngineError, EngineEvent, EngineInfo, EngineState,
    EngineStep, Picture, Pictures, Point, Preview, Resume, StageTimes,
};
use atelier_state::Digest;
use bytes::Bytes;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MODE: &str = "ATELIER_TEST_ENGINE";
const STEP: Duration = Duration::from_millis(10);

// ------------------------------------------------------------------------------------ in the child

/// The engine's process; does nothing when the harness runs it as a test.
#[test]
fn child_process() {
    let Ok(mode) = std::env::var(MODE) else { return };
    if mode == "fails" {
        eprintln!("loading the weights");
        eprintln!("no weights at /models");
        std::process::exit(1);
    }
    let pipe = std::fs::File::options().write(true).open("/dev/fd/3").expect("the shell gave it");
    let mut raw = pipe.try_clone().expect("a descriptor is free");
    let mut server = EngineServer::new(pipe);
    server.loading(1, 2).expect("the peer reads");
    if mode == "mute" {
        std::thread::sleep(Duration::from_secs(60));
    }
    let ready = EngineInfo { class: format!("pid {}", std::process::id()), ..info() };
    let ended = server.serve(std::io::stdin(), &ready, |order, told| draw(order, told, &mut raw));
    ended.expect("the peer closes the pipe between requests");
}

/// The first step has none.
fn preview(step: u32) -> Option<Preview> {
    Preview::new(vec![step as u8; step as usize - 1].into())
}

fn draw(
    order: &DrawOrder,
    told: &mut Teller<'_>,
    raw: &mut std::fs::File,
) -> Result<(), DrawFailure> {
    let (first, done) = order.resume.as_ref().map_or((0, 0), |point| (point.image, point.step));
    for step in done + 1..=order.steps {
        std::thread::sleep(STEP);
        let stage = "denoise".to_owned();
        let (image, steps, spent) = (first, order.steps, StageTimes::default());
        let preview = preview(step);
        let goes_on = told(Told::Step(EngineStep { stage, image, step, steps, spent, preview }));
        let due = order.checkpoint_steps > 0 && step.is_multiple_of(order.checkpoint_steps);
        if due || !goes_on {
            told(Told::Checkpoint(Point { image, step, latents: vec![step as u8; 8].into() }));
        }
        if !goes_on {
            return Err(DrawFailure::Stopped);
        }
        match order.prompt.as_str() {
            "crash" => {
                eprintln!("CUDA error 700: illegal address");
                std::process::abort();
            }
            "hang" => std::thread::sleep(Duration::from_secs(60)),
            "garbage" => raw.write_all(&[0xff; 64]).expect("the peer reads"),
            "torn" => {
                raw.write_all(&[0, 0, 1, 0, 1]).expect("the peer reads");
                std::process::exit(0);
            }
            "refuse" => return Err(DrawFailure::Refused("prompt is empty".to_owned())),
            "fail" => return Err(DrawFailure::Failed("out of memory".to_owned())),
            "huge" => {
                let data = vec![0; 65 * 1024 * 1024].into();
                told(Told::Picture(Picture { image: 0, media_type: "image/png".to_owned(), data }));
                return Ok(());
            }
            _ => {}
        }
    }
    let missing = u32::from(order.prompt == "one too few");
    for image in first..order.images - missing {
        let DrawOrder { prompt, width, height, steps, .. } = order;
        let mut text =
            format!("{prompt} {width}x{height} {steps} seed {}", order.seed + u64::from(image));
        if let Some(guidance) = &order.guidance {
            text += &format!(" not {} by {}", guidance.negative_prompt, guidance.scale);
        }
        if let Some(source) = &order.source {
            let mask = source.mask.as_deref();
            text += &format!(" from {:?} {mask:?} by {}", &source.image[..], source.strength);
        }
        let (media_type, data) = ("image/png".to_owned(), text.into_bytes().into());
        told(Told::Picture(Picture { image, media_type, data }));
    }
    Ok(())
}

// ------------------------------------------------------------------------------------- in the peer

fn child_command(mode: &'static str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    let script =
        r#"exec 3>&1 1>/dev/null; exec "$0" --exact engine_link::child_process --nocapture"#;
    command.arg("-c").arg(script).arg(std::env::current_exe().expect("it runs"));
    command.env(MODE, mode);
    command
}

struct Link {
    engine: Arc<ChildEngine>,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

fn link(mode: &'static str) -> Link {
    let settings = ChildSettings {
        silence: ms(700),
        start_silence: ms(3000),
        backoff_first: ms(20),
        backoff_max: ms(100),
        ..ChildSettings::default()
    };
    let shutdown = CancellationToken::new();
    let command = Box::new(move || Command::from(child_command(mode)));
    let (engine, task) = ChildEngine::spawn(command, settings, shutdown.clone());
    Link { engine, task, shutdown }
}

impl Link {
    async fn ready(&self) -> EngineInfo {
        let mut state = self.engine.ready();
        let ready = state.wait_for(|state| matches!(state, EngineState::Ready(_))).await;
        match ready.expect("the keeper lives").clone() {
            EngineState::Ready(info) => info,
            _ => unreachable!("waited for"),
        }
    }

    async fn pid(&self) -> u32 {
        self.ready().await.class.strip_prefix("pid ").expect("a pid").parse().expect("a number")
    }

    async fn draw(&self, prompt: &str, steps: u32) -> Result<Vec<Picture>, EngineError> {
        let (events, _told) = mpsc::channel(64);
        self.engine.draw(request(prompt, steps, 1), events, CancellationToken::new()).await
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.expect("the keeper ends in good order");
    }
}

fn request(prompt: &str, steps: u32, images: u32) -> DrawRequest {
    static WORKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let parameters =
        TextToImage { prompt: prompt.to_owned(), steps, images, seed: 7, ..Default::default() };
    DrawRequest {
        work: WORKS.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
        kind: TEXT_TO_IMAGE_KIND.to_owned(),
        parameters: parameters.encode(),
        pictures: Pictures::default(),
        checkpoint_steps: 0,
        resume: None,
    }
}

fn lives(pid: u32) -> bool {
    // A zombie that nobody has waited for is no living child.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn kill_9(pid: u32) {
    let status = std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status();
    assert!(status.expect("kill is there").success());
}

fn crashed(result: Result<Vec<Picture>, EngineError>) -> String {
    match result {
        Err(EngineError::Crashed(reason)) => reason,
        other => panic!("expected a crash, got {other:?}"),
    }
}

#[tokio::test]
async fn pictures_and_steps_come_from_the_child() {
    let link = link("draws");
    let (events, mut told) = mpsc::channel(64);
    let pictures = link.engine.draw(request("a cat", 3, 2), events, CancellationToken::new()).await;
    let texts: Vec<_> = pictures.unwrap().into_iter().map(|picture| picture.data).collect();
    assert_eq!(texts, ["a cat 64x64 3 seed 7", "a cat 64x64 3 seed 8"]);
    let mut steps = Vec::new();
    while let Ok(event) = told.try_recv() {
        let EngineEvent::Step(step) = event else { panic!("steps alone, got {event:?}") };
        assert_eq!(step.preview, preview(step.step));
        steps.push((step.step, step.steps));
    }
    assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(link.ready().await.files, info().files, "what was loaded is told");
    // What was left open is the model's to say.
    let text = link.draw("open", 0).await.unwrap().remove(0).data;
    assert_eq!(text, "open 64x64 4 seed 7");
    link.end().await;
}

#[tokio::test]
async fn what_a_picture_begins_from_reaches_the_child() {
    let link = link("draws");
    let (cat, mask) = (Digest([1; 32]), Digest([2; 32]));
    let asked = TextToImage {
        prompt: "a dog".to_owned(),
        steps: 1,
        guidance: Some(Guidance { scale: 2.5, negative_prompt: "a cat".to_owned() }),
        source: Some(Source { image: cat, strength: 0.0, mask: Some(mask) }),
        ..TextToImage::default()
    };
    let (kind, parameters) = (asked.kind().to_owned(), asked.encode());
    let pictures =
        Pictures([(cat, Bytes::from_static(&[7])), (mask, Bytes::from_static(&[8]))].into());
    let wanted = DrawRequest { kind, parameters, pictures, ..request("", 1, 1) };
    let draw = async |wanted: DrawRequest| {
        let (events, _told) = mpsc::channel(64);
        link.engine.draw(wanted, events, CancellationToken::new()).await
    };
    let drawn = draw(wanted.clone()).await.unwrap().remove(0).data;
    assert_eq!(drawn, "a dog 64x64 1 seed 0 not a cat by 2.5 from [7] Some([8]) by 0.6");
    let bare = DrawRequest { pictures: Pictures::default(), ..wanted };
    match draw(bare).await {
        Err(EngineError::Failed(text)) => assert!(text.contains("is not there"), "{text}"),
        other => panic!("expected a failed attempt, got {other:?}"),
    }
    link.end().await;
}

fn checkpoints(told: &mut mpsc::Receiver<EngineEvent>) -> Vec<EngineCheckpoint> {
    let mut checkpoints = Vec::new();
    while let Ok(event) = told.try_recv() {
        if let EngineEvent::Checkpoint(checkpoint) = event {
            checkpoints.push(checkpoint);
        }
    }
    checkpoints
}

#[tokio::test]
async fn work_goes_on_from_a_checkpoint_of_the_same_engine_alone() {
    let link = link("draws");
    let EngineInfo { class, model, .. } = link.ready().await;
    let (events, mut told) = mpsc::channel(64);
    let wanted = DrawRequest { checkpoint_steps: 2, ..request("a cat", 5, 3) };
    let drawn = link.engine.draw(wanted.clone(), events.clone(), CancellationToken::new()).await;
    let whole = drawn.unwrap();
    let made = checkpoints(&mut told);
    let steps: Vec<_> = made.iter().map(|made| (made.point.image, made.point.step)).collect();
    assert_eq!(steps, [(0, 2), (0, 4)]);
    assert_eq!((&made[1].class, &made[1].model), (&class, &model));

    let point = Point { image: 1, step: 4, latents: vec![4; 8].into() };
    let check = async |resume: Resume, images: &[u32], steps: &[(u32, u32)]| {
        let (events, mut told) = mpsc::channel(64);
        let work = wanted.work + 100;
        let wanted = DrawRequest { work, resume: Some(resume), ..wanted.clone() };
        let drawn = link.engine.draw(wanted, events, CancellationToken::new()).await.unwrap();
        assert_eq!(drawn.iter().map(|picture| picture.image).collect::<Vec<_>>(), images);
        assert_eq!(drawn, whole[whole.len() - drawn.len()..]);
        let mut seen = Vec::new();
        while let Ok(event) = told.try_recv() {
            if let EngineEvent::Step(step) = event {
                seen.push((step.image, step.step));
            }
        }
        assert_eq!(seen, steps);
    };
    let ours = Resume { class, model, point };
    check(ours.clone(), &[1, 2], &[(1, 5)]).await;
    let anew = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)];
    check(Resume { class: "another".to_owned(), ..ours.clone() }, &[0, 1, 2], &anew).await;
    check(Resume { model: "another".to_owned(), ..ours.clone() }, &[0, 1, 2], &anew).await;
    let beyond = |image, step| Point { image, step, ..ours.point.clone() };
    check(Resume { point: beyond(3, 1), ..ours.clone() }, &[0, 1, 2], &anew).await;
    check(Resume { point: beyond(0, 6), ..ours.clone() }, &[0, 1, 2], &anew).await;
    link.end().await;
}

#[tokio::test]
async fn kill_9_in_the_midst_is_a_crash_and_another_child_draws_on() {
    let link = link("draws");
    let first = link.pid().await;
    let (result, ()) = tokio::join!(link.draw("slow", 90), async {
        tokio::time::sleep(ms(100)).await;
        kill_9(first);
    });
    let reason = crashed(result);
    assert!(reason.contains("the engine's process ended"), "{reason}");
    assert!(!matches!(*link.engine.ready().borrow(), EngineState::Ready(ref info) if info.class
        == format!("pid {first}")));
    assert_eq!(link.draw("again", 1).await.unwrap().len(), 1);
    assert_ne!(link.pid().await, first);
    assert!(!lives(first));
    link.end().await;
}

#[tokio::test]
async fn an_abort_tells_the_last_words() {
    let link = link("draws");
    let reason = crashed(link.draw("crash", 5).await);
    assert!(reason.contains("CUDA error 700: illegal address"), "{reason}");
    assert!(reason.contains("SIGABRT"), "{reason}");
    assert_eq!(link.draw("again", 1).await.unwrap().len(), 1);
    link.end().await;
}

#[tokio::test]
async fn a_hang_is_killed_after_the_silence() {
    let link = link("draws");
    let first = link.pid().await;
    let asked = Instant::now();
    let reason = crashed(link.draw("hang", 5).await);
    assert!(reason.contains("silent for 700ms"), "{reason}");
    assert!(asked.elapsed() >= ms(700) && asked.elapsed() < ms(3000), "{:?}", asked.elapsed());
    assert!(!lives(first), "it hangs no more");
    assert_eq!(link.draw("again", 1).await.unwrap().len(), 1);
    link.end().await;
}

#[tokio::test]
async fn steps_keep_a_slow_child_alive_beyond_the_silence() {
    let link = link("draws");
    assert_eq!(link.draw("slow", 95).await.unwrap().len(), 1);
    link.end().await;
}

#[tokio::test]
async fn bad_frames_are_crashes() {
    let link = link("draws");
    let reason = crashed(link.draw("garbage", 5).await);
    assert!(reason.contains("at most 67108864 are allowed"), "{reason}");
    let reason = crashed(link.draw("torn", 5).await);
    assert!(reason.contains("ended within a frame"), "{reason}");
    let reason = crashed(link.draw("one too few", 1).await);
    assert!(reason.contains("0 pictures of 1 came"), "{reason}");
    assert_eq!(link.draw("again", 1).await.unwrap().len(), 1);
    link.end().await;
}

#[tokio::test]
async fn refusals_and_failures_leave_the_child_alive() {
    let link = link("draws");
    let first = link.pid().await;
    let refused = |text: &str| Err(EngineError::Refused(text.to_owned()));
    assert_eq!(link.draw("refuse", 1).await, refused("prompt is empty"));
    let failed = EngineError::Failed("out of memory".to_owned());
    assert_eq!(link.draw("fail", 1).await, Err(failed));
    // A picture that no frame holds: the child's side of the bound.
    let huge = link.draw("huge", 1).await;
    assert!(
        matches!(&huge, Err(EngineError::Refused(text)) if text.contains("67108864")),
        "{huge:?}"
    );
    // What the parameters themselves forbid never reaches the child.
    let wide = TextToImage { width: 1000, ..TextToImage::default() };
    let (events, _told) = mpsc::channel(64);
    let request = DrawRequest { parameters: wide.encode(), ..request("", 1, 1) };
    let wide = link.engine.draw(request.clone(), events.clone(), CancellationToken::new()).await;
    assert_eq!(wide, refused("width 1000 is not a multiple of 16 from 64 to 2048; use 1008"));
    let speech = DrawRequest { kind: "speech/v1".to_owned(), ..request };
    let speech = link.engine.draw(speech, events, CancellationToken::new()).await;
    assert!(matches!(speech, Err(EngineError::Refused(_))), "{speech:?}");
    assert_eq!(link.pid().await, first);
    link.end().await;
}

#[tokio::test]
async fn a_stop_is_obeyed_at_the_next_step_and_the_child_lives_on() {
    let link = link("draws");
    let first = link.pid().await;
    let stop = CancellationToken::new();
    let (events, mut told) = mpsc::channel(64);
    let drawn = link.engine.draw(request("slow", 90, 1), events, stop.clone());
    let (result, asked) = tokio::join!(drawn, async {
        told.recv().await.expect("a step comes");
        stop.cancel();
        Instant::now()
    });
    assert_eq!(result, Err(EngineError::Stopped));
    let left = checkpoints(&mut told);
    assert_eq!(left.len(), 1, "where it stopped, though none was asked for: {left:?}");
    assert!(asked.elapsed() < ms(400), "{:?}", asked.elapsed());
    // A dropped future stops the work as well: the next need not wait for 90 steps.
    let dropped = tokio::time::timeout(ms(100), link.draw("slow", 90)).await;
    assert!(dropped.is_err());
    let asked = Instant::now();
    assert_eq!(link.draw("again", 1).await.unwrap().len(), 1);
    assert!(asked.elapsed() < ms(500), "{:?}", asked.elapsed());
    assert_eq!(link.pid().await, first);
    link.end().await;
}

#[tokio::test]
async fn works_wait_for_one_another_and_one_that_waits_stops_at_once() {
    let link = link("draws");
    link.ready().await;
    let asked = Instant::now();
    let stop = CancellationToken::new();
    let (events, _told) = mpsc::channel(64);
    let third = async {
        tokio::time::sleep(ms(50)).await;
        let drawn = link.engine.draw(request("third", 30, 1), events, stop.clone());
        let (result, ()) = tokio::join!(drawn, async {
            tokio::time::sleep(ms(50)).await;
            stop.cancel();
        });
        (result, asked.elapsed())
    };
    let (first, second, third) =
        tokio::join!(link.draw("first", 30), link.draw("second", 30), third);
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (1, 1));
    assert!(asked.elapsed() >= 60 * STEP, "one after the other");
    assert_eq!(third.0, Err(EngineError::Stopped));
    assert!(third.1 < ms(290), "it did not wait for its turn: {:?}", third.1);
    link.end().await;
}

#[tokio::test]
async fn an_engine_that_never_starts_is_unfit_and_says_why() {
    let link = link("fails");
    let asked = tokio::time::timeout(Duration::from_secs(20), link.draw("a cat", 1)).await;
    let result = asked.expect("unfit comes soon");
    let Err(EngineError::Unfit(reason)) = result else { panic!("got {result:?}") };
    assert!(reason.contains("no weights at /models"), "{reason}");
    assert!(matches!(&*link.engine.ready().borrow(), EngineState::Unfit(text) if *text == reason));
    link.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_unfit() {
    let settings =
        ChildSettings { backoff_first: ms(1), start_failures_max: 2, ..ChildSettings::default() };
    let shutdown = CancellationToken::new();
    let command = Box::new(|| Command::new("/nowhere/atelierd"));
    let (engine, task) = ChildEngine::spawn(command, settings, shutdown);
    task.await.unwrap();
    let EngineState::Unfit(reason) = engine.ready().borrow().clone() else { panic!("not unfit") };
    assert!(reason.starts_with("cannot start /nowhere/atelierd"), "{reason}");
}

#[tokio::test]
async fn shutdown_ends_the_child_even_while_it_draws_or_loads() {
    let drawing = link("draws");
    let pid = drawing.pid().await;
    let draws = drawing.engine.clone();
    let (events, _told) = mpsc::channel(64);
    let drawn = tokio::spawn(async move {
        draws.draw(request("slow", 90, 1), events, CancellationToken::new()).await
    });
    tokio::time::sleep(ms(50)).await;
    drawing.end().await;
    assert_eq!(drawn.await.unwrap(), Err(EngineError::Stopped));
    assert!(!lives(pid));

    let loading = link("mute");
    let mut state = loading.engine.ready();
    let told = EngineState::Loading { bytes: 1, total: 2 };
    state.wait_for(|state| *state == told).await.unwrap();
    let asked = Instant::now();
    loading.end().await;
    assert!(asked.elapsed() < ms(4000));
}

#[tokio::test]
async fn a_child_whose_peer_dies_ends_by_itself() {
    use atelier_proto::engine::v1::{Draw, EngineReply, EngineRequest, engine_request::Request};
    use std::process::Stdio;
    let mut command = child_command("draws");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut answers = child.stdout.take().unwrap();
    let mut requests = child.stdin.take().unwrap();
    let read = || atelier_peer::engine_link::frame::read_frame::<EngineReply>(&mut answers);
    let first = std::iter::repeat_with(read).take(2).map(|frame| frame.unwrap().unwrap()).last();
    assert!(format!("{first:?}").contains("Ready"), "{first:?}");
    let draw =
        Draw { work: 1, prompt: "slow".to_owned(), steps: 1000, images: 1, ..Draw::default() };
    let draw = EngineRequest { request: Some(Request::Draw(draw)) };
    atelier_peer::engine_link::frame::write_frame(&mut requests, &draw).unwrap();
    // The pipe of the answers stays open and is read, so that only the end of the requests can
    // tell.
    let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let closed = Instant::now();
    drop(requests);
    eventually("its end", || child.try_wait().unwrap()).await;
    assert!(closed.elapsed() < ms(2000), "it drew on for {:?}", closed.elapsed());
    reader.join().unwrap().unwrap();
}
