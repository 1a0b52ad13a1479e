//! The engine's side of the pipe: blocking, one piece of work at a time.
//!
//! Owns the loop of the engine's process. It must not know how a picture is drawn. A second thread
//! reads the requests, so that Stop and the end of the peer are seen while a picture is drawn.

use super::frame::{FrameError, read_frame, write_frame};
use crate::model_files::{FileStamp, ModelFile};
use crate::parameters::Guidance;
use crate::ports::engine::{EngineInfo, EngineStep, Picture, Point, Preview, StageTimes};
use atelier_proto::engine::v1::{
    self as wire, EngineReply, EngineRequest, engine_reply::Reply, engine_request::Request,
};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// Pieces of work that wait. The peer sends one at a time; a peer that sends more is made to wait.
const WORKS_WAITING_MAX: usize = 1;

/// What is to be drawn; sizes and steps are never 0.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawOrder {
    /// The peer's name for it.
    pub work: u64,
    /// What to draw.
    pub prompt: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Forwards of the transformer.
    pub steps: u32,
    /// Of image 0; image i is drawn from seed + i.
    pub seed: u64,
    /// How many.
    pub images: u32,
    /// Steps between checkpoints; 0: after each step that costs more than a quarter of a second.
    pub checkpoint_steps: u32,
    /// Where to go on; earlier images are neither drawn nor told.
    pub resume: Option<Point>,
    /// None: as Turbo is drawn.
    pub guidance: Option<Guidance>,
    /// None: from noise alone.
    pub source: Option<DrawSource>,
}

/// A picture to begin from.
#[derive(Clone, PartialEq)]
pub struct DrawSource {
    /// PNG of the size that is drawn.
    pub image: Bytes,
    /// How much is drawn anew, 0.001 to 1.
    pub strength: f64,
    /// PNG of the same size: what is light is drawn anew; none: all is.
    pub mask: Option<Bytes>,
}

impl fmt::Debug for DrawSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixels do not belong into logs.
        let DrawSource { image, strength, mask } = self;
        let mask = mask.as_ref().map(Bytes::len);
        write!(f, "picture of {} bytes, mask of {mask:?}, strength {strength}", image.len())
    }
}

/// What is told while an order is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step is done, or is where the order was resumed.
    Step(EngineStep),
    /// Where another engine could go on.
    Checkpoint(Point),
    /// A picture is finished; each is told once, in order.
    Picture(Picture),
}

/// Takes what is told; false: stop, after a checkpoint if there is one to tell.
pub type Teller<'a> = dyn FnMut(Told) -> bool + 'a;

/// Why an order was not drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawFailure {
    /// The order is at fault; another attempt would fail in the same way.
    #[error("{0}")]
    Refused(String),
    /// This attempt failed.
    #[error("{0}")]
    Failed(String),
    /// The teller said to stop.
    #[error("stopped")]
    Stopped,
}

/// Why the loop ended before the peer closed the pipe.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer sent what is no request, or the pipe failed.
    #[error("requests: {0}")]
    Requests(FrameError),
    /// An answer could not be written; the peer is gone.
    #[error("answers: {0}")]
    Answers(#[from] FrameError),
}

/// The engine's end of the pipe, from start to end.
#[derive(Debug)]
pub struct EngineServer<W: Write> {
    answers: W,
}

impl<W: Write> EngineServer<W> {
    /// Takes the process's standard output. Nothing else may write there.
    pub fn new(answers: W) -> EngineServer<W> {
        EngineServer { answers }
    }

    /// Tells how far the model is read.
    ///
    /// # Errors
    /// When the peer is gone; end the process then.
    pub fn loading(&mut self, bytes: u64, bytes_total: u64) -> Result<(), FrameError> {
        let loading = wire::Loading { bytes, bytes_total };
        answer(&mut self.answers, Reply::Loading(loading))
    }

    /// Announces itself, then draws what is asked for until the peer closes the pipe.
    ///
    /// `draw` tells its second argument each step and each picture, and stops when that returns
    /// false.
    ///
    /// # Errors
    /// As [`ServeError`] tells; end the process then.
    pub fn serve<R, D>(
        mut self,
        requests: R,
        ready: &EngineInfo,
        mut draw: D,
    ) -> Result<(), ServeError>
    where
        R: Read + Send + 'static,
        D: FnMut(&DrawOrder, &mut Teller<'_>) -> Result<(), DrawFailure>,
    {
        answer(&mut self.answers, Reply::Ready(ready_to_wire(ready)))?;
        let halt = Arc::new(Halt::default());
        let (orders, waiting) = mpsc::sync_channel(WORKS_WAITING_MAX);
        // Not joined: it ends with the pipe, which the peer holds, or with the process.
        std::thread::spawn({
            let halt = halt.clone();
            move || read_requests(requests, &halt, &orders)
        });
        for order in waiting {
            let order = order.map_err(ServeError::Requests)?;
            let result = self.draw_one(&order, &halt, &mut draw)?;
            halt.forget(order.work);
            self.answer_result(order.work, result)?;
        }
        Ok(())
    }

    fn draw_one<D>(
        &mut self,
        order: &DrawOrder,
        halt: &Halt,
        draw: &mut D,
    ) -> Result<Result<(), DrawFailure>, FrameError>
    where
        D: FnMut(&DrawOrder, &mut Teller<'_>) -> Result<(), DrawFailure>,
    {
        if halt.holds(order.work) {
            return Ok(Err(DrawFailure::Stopped));
        }
        let mut written = Ok(());
        let result = draw(order, &mut |told| {
            if written.is_ok() {
                written = answer(&mut self.answers, told_to_wire(order.work, told));
            }
            written.is_ok() && !halt.holds(order.work)
        });
        match written {
            Ok(()) => Ok(result),
            // Nothing of it was written; the order is at fault.
            Err(error @ FrameError::TooLong(_)) => Ok(Err(DrawFailure::Refused(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    fn answer_result(
        &mut self,
        work: u64,
        result: Result<(), DrawFailure>,
    ) -> Result<(), FrameError> {
        let last = match result {
            Ok(()) => Reply::Done(wire::Done { work }),
            Err(DrawFailure::Refused(error)) => failed(work, &error, true),
            Err(DrawFailure::Failed(error)) => failed(work, &error, false),
            Err(DrawFailure::Stopped) => Reply::Stopped(wire::Stopped { work }),
        };
        answer(&mut self.answers, last)
    }
}

/// What is to be stopped.
#[derive(Debug, Default)]
struct Halt {
    state: Mutex<Halted>,
}

#[derive(Debug, Default)]
struct Halted {
    // Holds one work at most but for a peer that stops what it never sent; bounded all the same.
    works: BTreeSet<u64>,
    all: bool,
}

const HALTED_WORKS_MAX: usize = 16;

impl Halt {
    fn one(&self, work: u64) {
        let mut halted = self.lock();
        halted.works.insert(work);
        if halted.works.len() > HALTED_WORKS_MAX {
            halted.works.pop_first();
        }
    }

    fn all(&self) {
        self.lock().all = true;
    }

    fn holds(&self, work: u64) -> bool {
        let halted = self.lock();
        halted.all || halted.works.contains(&work)
    }

    fn forget(&self, work: u64) {
        self.lock().works.remove(&work);
    }

    fn lock(&self) -> MutexGuard<'_, Halted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_requests(
    mut requests: impl Read,
    halt: &Halt,
    orders: &mpsc::SyncSender<Result<DrawOrder, FrameError>>,
) {
    loop {
        let sent = match read_frame::<EngineRequest>(&mut requests) {
            Ok(Some(EngineRequest { request: Some(Request::Draw(draw)) })) => {
                orders.send(Ok(order_from_wire(draw)))
            }
            Ok(Some(EngineRequest { request: Some(Request::Stop(stop)) })) => {
                halt.one(stop.work);
                Ok(())
            }
            // A request of a later version: nothing that this engine could answer.
            Ok(Some(EngineRequest { request: None })) => Ok(()),
            Ok(None) => {
                halt.all();
                return;
            }
            Err(error) => {
                halt.all();
                let _ = orders.send(Err(error));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn answer(answers: &mut impl Write, reply: Reply) -> Result<(), FrameError> {
    write_frame(answers, &EngineReply { reply: Some(reply) })
}

fn failed(work: u64, error: &str, permanent: bool) -> Reply {
    Reply::Failed(wire::Failed { work, error: error.to_owned(), permanent })
}

fn ready_to_wire(info: &EngineInfo) -> wire::Ready {
    wire::Ready {
        class: info.class.clone(),
        model: info.model.clone(),
        default_width: info.default_width,
        default_height: info.default_height,
        default_steps: info.default_steps,
        guided: info.guided,
        directory: info.files.directory.to_string_lossy().into_owned(),
        files: info.files.files.iter().map(file_to_wire).collect(),
    }
}

fn file_to_wire(file: &ModelFile) -> wire::ModelFile {
    let FileStamp { bytes, inode, modified_ns, changed_ns } = file.stamp;
    let path = file.path.to_string_lossy().into_owned();
    let digest = file.digest.to_vec().into();
    wire::ModelFile { path, bytes, inode, modified_ns, changed_ns, digest }
}

fn told_to_wire(work: u64, told: Told) -> Reply {
    match told {
        Told::Step(step) => {
            let EngineStep { stage, image, step, steps, spent, preview } = step;
            let StageTimes { encode_us, denoise_us, decode_us } = spent;
            Reply::Step(wire::Step {
                work,
                stage,
                image,
                step,
                steps,
                encode_us,
                denoise_us,
                decode_us,
                preview: Preview::into_bytes(preview),
            })
        }
        Told::Checkpoint(Point { image, step, latents }) => {
            let point = Some(wire::Point { image, step, latents });
            Reply::Checkpoint(wire::Checkpoint { work, point })
        }
        Told::Picture(Picture { image, media_type, data }) => {
            Reply::Picture(wire::Picture { work, image, media_type, data })
        }
    }
}

fn order_from_wire(draw: wire::Draw) -> DrawOrder {
    let wire::Draw { work, prompt, width, height, steps, seed, images, checkpoint_steps, .. } =
        draw;
    let resume = draw.resume;
    let resume = resume.map(|wire::Point { image, step, latents }| Point { image, step, latents });
    let guidance = draw
        .guidance
        .map(|wire::Guidance { scale, negative_prompt }| Guidance { scale, negative_prompt });
    let source = draw.source.map(|wire::Source { image, strength, mask }| DrawSource {
        image,
        strength,
        mask: (!mask.is_empty()).then_some(mask),
    });
    DrawOrder {
        work,
        prompt,
        width,
        height,
        steps,
        seed,
        images,
        checkpoint_steps,
        resume,
        guidance,
        source,
    }
}
